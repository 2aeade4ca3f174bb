"""Everything that outlives the process: SQLite in WAL mode, one transaction a block.

A commit survives the death of the process at any moment (not the loss of power: WAL without fsync).
Accounts are kept in versions: the newest, and those the last `WINDOW` blocks still refer to. So are
the messages those blocks took out of the queue: any of them can be undone.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ton_devnet.blocks import (
    BASECHAIN,
    KEY_BLOCK_SEQNO,
    MASTERCHAIN,
    Block,
    BlockId,
    BlockRef,
    Sealed,
    Step,
)
from ton_devnet.cells import from_boc, to_boc

WINDOW = 32
"""Blocks whose states can still be asked for, and which can still be undone."""

_NEWEST = 2**63 - 1
_FORGOTTEN = "forgotten"
FORK = "fork"
"""Setting: how often the chain has been rolled back."""
FIRST_STEP = KEY_BLOCK_SEQNO + 1
"""A lite-client that trusts only the first block needs a second one to step to."""
_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (
    position INTEGER PRIMARY KEY, address BLOB, boc BLOB, sent_in INTEGER, taken_in INTEGER
);
CREATE INDEX IF NOT EXISTS queue_by_block ON queue (taken_in);
CREATE TABLE IF NOT EXISTS account (
    address BLOB, seqno INTEGER, balance INTEGER, leaf BLOB, boc BLOB,
    PRIMARY KEY (address, seqno)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subtree (
    prefix BLOB PRIMARY KEY, hash BLOB, depth INTEGER, balance INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS block (
    seqno INTEGER PRIMARY KEY, utime INTEGER, start_lt INTEGER, end_lt INTEGER,
    shard_root BLOB, shard_file BLOB, master_root BLOB, master_file BLOB,
    shard_boc BLOB, master_boc BLOB
);
CREATE INDEX IF NOT EXISTS block_by_lt ON block (end_lt);
CREATE INDEX IF NOT EXISTS block_by_utime ON block (utime);
CREATE TABLE IF NOT EXISTS transactions (
    address BLOB, lt INTEGER, seqno INTEGER, hash BLOB, boc BLOB, PRIMARY KEY (address, lt)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS transactions_by_block ON transactions (seqno, address, lt);
CREATE TABLE IF NOT EXISTS history (
    number INTEGER PRIMARY KEY, end_lt INTEGER,
    left_hash BLOB, left_depth INTEGER, right_hash BLOB, right_depth INTEGER
);
"""


class StoreVersionError(RuntimeError):
    """The database was written by a version of this program with another format."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A message waiting for its block. Positions only grow."""

    position: int
    address: bytes
    boc: bytes


@dataclass(frozen=True, slots=True)
class AccountRow:
    address: bytes
    balance: int
    leaf: bytes
    boc: bytes


@dataclass(frozen=True, slots=True)
class Subtree:
    """All accounts whose address begins with the byte `prefix`, as part of the state tree.

    `hash` is None when there is no digest to trust: no edge begins there, or a block was undone.
    """

    prefix: bytes
    hash: bytes | None
    depth: int
    balance: int


@dataclass(frozen=True, slots=True)
class TransactionRow:
    address: bytes
    lt: int
    seqno: int
    hash: bytes
    boc: bytes


@dataclass(frozen=True, slots=True)
class Group:
    """A full run of blocks in OldMcBlocksInfo, of which only the top digests are kept."""

    number: int
    end_lt: int
    left: tuple[bytes, int]
    right: tuple[bytes, int]


class Store:
    """One open database. Not shared between processes; the server holds a lock on its folder."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._adopt(path)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA wal_autocheckpoint = 4000")
        self._db.executescript(_SCHEMA)

    def _adopt(self, path: Path) -> None:
        is_new = not self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if is_new:
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise StoreVersionError(
                f"{path} was written in format {version}, this ton_devnet writes {_VERSION};"
                " start with a new state folder, or go back to the version that wrote it"
            )

    def close(self) -> None:
        self._db.close()

    # Settings

    def setting(self, name: str) -> int | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def set(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    # Queue

    def enqueue(self, message: Queued) -> None:
        row = (message.position, message.address, message.boc)
        self._db.execute("INSERT INTO queue VALUES (?, ?, ?, NULL, NULL)", row)

    def queue(self) -> list[Queued]:
        rows = self._db.execute(
            "SELECT position, address, boc FROM queue WHERE taken_in IS NULL ORDER BY position"
        )
        return [Queued(*row) for row in rows]

    def last_position(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(position), 0) FROM queue").fetchone()[0])

    # One block

    def commit(
        self,
        block: Block,
        accounts: Sequence[AccountRow],
        subtrees: Sequence[Subtree],
        transactions: Sequence[TransactionRow],
        taken: int,
        queued: Sequence[Queued],
        group: Group | None,
    ) -> None:
        """Write a block with all its effects; `taken` is the last queue position it consumed."""
        step, shard, master = block.step, block.shard, block.master
        db, seqno = self._db, step.seqno
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(seqno, step.utime, step.start_lt, step.end_lt),
                *(shard.id.root_hash, shard.id.file_hash),
                *(master.id.root_hash, master.id.file_hash),
                *(to_boc(shard.root), to_boc(master.root)),
            ),
        )
        db.executemany(
            "INSERT INTO account VALUES (?, ?, ?, ?, ?)",
            [(row.address, seqno, row.balance, row.leaf, row.boc) for row in accounts],
        )
        db.executemany(
            "INSERT OR REPLACE INTO subtree VALUES (?, ?, ?, ?)",
            [(part.prefix, part.hash, part.depth, part.balance) for part in subtrees],
        )
        db.executemany(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?)",
            [(row.address, row.lt, row.seqno, row.hash, row.boc) for row in transactions],
        )
        db.execute(
            "UPDATE queue SET taken_in = ? WHERE taken_in IS NULL AND position <= ?", (seqno, taken)
        )
        db.executemany(
            "INSERT INTO queue VALUES (?, ?, ?, ?, NULL)",
            [(message.position, message.address, message.boc, seqno) for message in queued],
        )
        if group is not None:
            row = (group.number, group.end_lt, *group.left, *group.right)
            # A run folded once more after a rollback is the same run: it ends far behind.
            db.execute("INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?, ?)", row)
        db.execute("DELETE FROM queue WHERE taken_in <= ?", (seqno - WINDOW,))
        self._forget_versions(seqno - WINDOW)
        db.execute("COMMIT")

    def _forget_versions(self, seqno: int) -> None:
        """Drop account versions that block `seqno`, leaving the window, had already replaced."""
        self._db.execute(
            "DELETE FROM account WHERE (address, seqno) IN ("
            " SELECT old.address, old.seqno"
            " FROM (SELECT DISTINCT address FROM transactions WHERE seqno = :seqno) AS changed"
            " JOIN account AS old USING (address) WHERE old.seqno < :seqno)",
            {"seqno": seqno},
        )

    # Rollback

    def oldest_head(self) -> int:
        """The lowest block that can become the head again: its state is still here, and so is all
        that came after it.
        """
        return max(self.setting(_FORGOTTEN) or 0, self.head() - WINDOW, FIRST_STEP)

    def undo(self, head: int, *, lose_externals: bool, fork: int) -> None:
        """Make block `head` the newest again. Messages taken later wait once more; `lose_externals`
        drops those among them that came from outside.
        """
        db, above, oldest = self._db, (head,), self.oldest_head()
        db.execute("BEGIN IMMEDIATE")
        self.set(_FORGOTTEN, oldest)
        self.set(FORK, fork)
        db.execute(
            "DELETE FROM account WHERE (address, seqno) IN"
            " (SELECT address, seqno FROM transactions WHERE seqno > ?)",
            above,
        )
        db.execute(
            "UPDATE subtree SET hash = NULL WHERE prefix IN"
            " (SELECT substr(address, 1, 1) FROM transactions WHERE seqno > ?)",
            above,
        )
        db.execute("DELETE FROM transactions WHERE seqno > ?", above)
        db.execute("DELETE FROM block WHERE seqno > ?", above)
        db.execute("DELETE FROM queue WHERE sent_in > ?", above)
        if lose_externals:
            db.execute("DELETE FROM queue WHERE taken_in > ? AND sent_in IS NULL", above)
        db.execute("UPDATE queue SET taken_in = NULL WHERE taken_in > ?", above)
        db.execute("COMMIT")

    # Accounts

    def account(self, address: bytes, seqno: int = _NEWEST) -> bytes | None:
        """The ShardAccount BoC as of a block within the window, or as it is now."""
        row = self._db.execute(
            "SELECT boc FROM account WHERE address = ? AND seqno <= ? ORDER BY seqno DESC LIMIT 1",
            (address, seqno),
        ).fetchone()
        return None if row is None else row[0]

    def subtrees(self) -> list[Subtree]:
        """One for every first byte there is among the addresses, in order."""
        return [Subtree(*row) for row in self._db.execute("SELECT * FROM subtree ORDER BY prefix")]

    def leaves(
        self, prefix: bytes = b"", seqno: int = _NEWEST
    ) -> Iterator[tuple[bytes, bytes, int]]:
        """(address, leaf, balance) of the accounts whose address begins so, in address order, as of
        a block within the window, or as they are now.
        """
        rows = self._db.execute(
            "SELECT address, leaf, balance, max(seqno) FROM account"
            " WHERE address BETWEEN ? AND ? AND seqno <= ? GROUP BY address",
            (prefix.ljust(32, b"\0"), prefix.ljust(32, b"\xff"), seqno),
        )
        return ((address, leaf, balance) for address, leaf, balance, _ in rows)

    # Blocks

    def head(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(seqno), 0) FROM block").fetchone()[0])

    def block(self, seqno: int) -> Block | None:
        row = self._db.execute("SELECT * FROM block WHERE seqno = ?", (seqno,)).fetchone()
        if row is None:
            return None
        step = Step(*row[:4])
        shard_id, master_id = (
            BlockId(BASECHAIN, seqno, *row[4:6]),
            BlockId(MASTERCHAIN, seqno, *row[6:8]),
        )
        shard, master = from_boc(row[8])[0], from_boc(row[9])[0]
        return Block(step, Sealed(shard_id, shard, None), Sealed(master_id, master, None), None)

    def block_boc(self, id: BlockId) -> bytes:
        """A stored block as it was hashed."""
        column = "master_boc" if id.workchain == MASTERCHAIN else "shard_boc"
        query = f"SELECT {column} FROM block WHERE seqno = ?"
        boc: bytes = self._db.execute(query, (id.seqno,)).fetchone()[0]
        return boc

    def shard_id(self, seqno: int) -> BlockId:
        row = self._db.execute(
            "SELECT seqno, shard_root, shard_file FROM block WHERE seqno = ?", (seqno,)
        ).fetchone()
        return BlockId(BASECHAIN, *row)

    def master_refs(self, first: int, last: int) -> Iterator[BlockRef]:
        rows = self._db.execute(
            "SELECT end_lt, seqno, master_root, master_file FROM block"
            " WHERE seqno BETWEEN ? AND ? ORDER BY seqno",
            (first, last),
        )
        return (BlockRef(*row) for row in rows)

    def first_ending_at(self, lt: int) -> int | None:
        """The first block whose end is not before the logical time."""
        row = self._db.execute("SELECT min(seqno) FROM block WHERE end_lt >= ?", (lt,)).fetchone()
        return row[0]  # type: ignore[no-any-return]

    def last_made_at(self, utime: int) -> int | None:
        """The last block made not after the unix time."""
        row = self._db.execute("SELECT max(seqno) FROM block WHERE utime <= ?", (utime,)).fetchone()
        return row[0]  # type: ignore[no-any-return]

    # Transactions

    def transactions_down_from(self, address: bytes, lt: int, count: int) -> list[TransactionRow]:
        rows = self._db.execute(
            "SELECT * FROM transactions WHERE address = ? AND lt <= ? ORDER BY lt DESC LIMIT ?",
            (address, lt, count),
        )
        return [TransactionRow(*row) for row in rows]

    def transactions_in(
        self, seqno: int, after: tuple[bytes, int], count: int
    ) -> list[TransactionRow]:
        """Of one block, in (address, lt) order, beginning behind `after`."""
        rows = self._db.execute(
            "SELECT * FROM transactions WHERE seqno = ? AND (address, lt) > (?, ?)"
            " ORDER BY address, lt LIMIT ?",
            (seqno, *after, count),
        )
        return [TransactionRow(*row) for row in rows]

    # History groups

    def groups(self) -> list[Group]:
        rows = self._db.execute("SELECT * FROM history ORDER BY number")
        return [Group(n, end_lt, (lh, ld), (rh, rd)) for n, end_lt, lh, ld, rh, rd in rows]
