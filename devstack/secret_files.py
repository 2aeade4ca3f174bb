"""Secrets that the stack makes up on first use and keeps in files only their owner may read."""

import os
import secrets
from pathlib import Path


def secret(path: Path, *, size: int = 24) -> str:
    """The hexadecimal secret kept in `path`: `size` random bytes, made up when first asked for."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(size) + "\n")
    return path.read_text().strip()
