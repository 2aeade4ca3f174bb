"""Files that survive a kill at any moment: the old content or the new, never half of it."""

import os
import secrets
from pathlib import Path


def write(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Put `content` into `path`, written beside it and renamed; `mode` are its permissions."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def secret(path: Path, *, size: int = 24) -> str:
    """The hexadecimal secret kept in `path`: `size` random bytes, made up when first asked for."""
    if not path.exists():
        write(path, secrets.token_hex(size) + "\n")
    return path.read_text().strip()
