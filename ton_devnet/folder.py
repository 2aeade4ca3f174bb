"""The state folder: keys, the database, the lock, and the config file clients read."""

import base64
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from nacl.signing import SigningKey

from ton_devnet.blocks import WHOLE_SHARD, BlockId

LOOPBACK = 0x7F000001


class StateFolderError(RuntimeError):
    """The state folder cannot be used as asked; the text says what to do."""


class StateFolder:
    """Paths and keys of one network."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / "chain.sqlite3"
        self.global_config = path / "global.config.json"
        self.control = path / "control.json"

    def create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one server; the lock goes with the process, however it ends."""
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateFolderError(
                    f"another ton_devnet already serves {self.path};"
                    " stop it, or give this one its own --state folder"
                ) from None
            yield

    def key(self, name: str) -> SigningKey:
        """The ed25519 key `name`; made on first use, readable by the owner alone."""
        path = self.path / f"{name}.key"
        if not path.exists():
            _write_whole(path, bytes(SigningKey.generate()).hex().encode() + b"\n")
        return self.existing_key(name)

    def existing_key(self, name: str) -> SigningKey:
        """Raises StateFolderError when there is no such key (yet)."""
        path = self.path / f"{name}.key"
        try:
            return SigningKey(bytes.fromhex(path.read_text().strip()))
        except FileNotFoundError:
            raise StateFolderError(
                f"{path} is missing; start the network first: python -m ton_devnet serve"
                f" --state {self.path}"
            ) from None
        except ValueError:
            raise StateFolderError(
                f"{path} does not hold 64 hex digits; put the key back, or start with a new folder"
            ) from None

    def write_global_config(self, port: int, server: SigningKey, init_block: BlockId) -> None:
        """The standard global-config JSON: where the lite-server is, and what to trust.

        Many clients want a zero state; this chain begins with its first block instead.
        """
        first = {
            "workchain": init_block.workchain,
            "shard": WHOLE_SHARD,
            "seqno": init_block.seqno,
            "root_hash": _base64(init_block.root_hash),
            "file_hash": _base64(init_block.file_hash),
        }
        config = {
            "@type": "config.global",
            "liteservers": [
                {
                    "ip": LOOPBACK,
                    "port": port,
                    "id": {"@type": "pub.ed25519", "key": _base64(bytes(server.verify_key))},
                }
            ],
            "validator": {
                "@type": "validator.config.global",
                "zero_state": {**first, "seqno": 0},
                "init_block": first,
            },
        }
        _write_whole(self.global_config, json.dumps(config, indent=2).encode() + b"\n")

    def read_global_config(self) -> dict[str, object]:
        try:
            config: dict[str, object] = json.loads(self.global_config.read_text())
        except FileNotFoundError:
            raise StateFolderError(
                f"{self.global_config} is missing; start the network first:"
                f" python -m ton_devnet serve --state {self.path}"
            ) from None
        return config

    def write_control(self, port: int, token: str) -> None:
        """Where the running server takes commands; who can read the file may give them."""
        _write_whole(self.control, json.dumps({"port": port, "token": token}).encode() + b"\n")

    def read_control(self) -> tuple[int, str]:
        """(port, token). Raises StateFolderError when no server has run here."""
        try:
            access = json.loads(self.control.read_text())
        except FileNotFoundError:
            raise StateFolderError(
                f"{self.control} is missing; start the network first:"
                f" python -m ton_devnet serve --state {self.path}"
            ) from None
        return int(access["port"]), str(access["token"])


def _write_whole(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
