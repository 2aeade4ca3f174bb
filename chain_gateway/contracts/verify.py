"""Does the committed code belong to the committed sources? `python -m chain_gateway.contracts`."""

import base64
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from pytoniq_core.boc.cell import Cell

HERE = Path(__file__).parent
_COMPILER = Path("node_modules") / "@ton-community" / "func-js"


def differences(folder: Path = HERE) -> list[str]:
    """What does not match, in words; empty when sources, code and hashes.json agree."""
    found: list[str] = []
    for name, expected in _hashes(folder)["contracts"].items():
        boc = base64.b64decode((folder / f"{name}.boc").read_text())
        if Cell.one_from_boc(boc).hash.hex() != expected["code_hash"]:
            found.append(f"{name}.boc is not the code in hashes.json; run `npm run build`")
        for source, digest in expected["sources"].items():
            if hashlib.sha256((folder / source).read_bytes()).hexdigest() != digest:
                found.append(f"{source} is newer than {name}.boc; run `npm run build`")
    return found


def recompiled(folder: Path = HERE) -> bool | None:
    """Whether compiling gives the committed hashes; None when the compiler is not installed."""
    node = shutil.which("node")
    if node is None or not (folder / _COMPILER).is_dir():
        return None
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([node, str(folder / "build.js"), out], check=True, timeout=60)
        return _hashes(Path(out)) == _hashes(folder)


def _hashes(folder: Path) -> dict[str, Any]:
    hashes: dict[str, Any] = json.loads((folder / "hashes.json").read_text())
    return hashes
