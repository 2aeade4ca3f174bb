"""A snapshot is one message: what does not fit is left out, the oldest first."""

from datetime import UTC, datetime

from mesh.wire import MAX_MESSAGE_BYTES
from nft_svc.convert import snapshot
from nft_svc.metadata import ItemContent
from nft_svc.mints import Mint

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def mints(count: int, size: int) -> list[Mint]:
    content = ItemContent("Explorer I", "", "ipfs://x", (("story", "é" * (size // 2)),))
    return [Mint(f"{n:04}", "nft", "ada", "explorer", content, NOW, NOW) for n in range(count)]


def test_a_snapshot_that_fits_is_whole_and_in_order() -> None:
    told = snapshot(mints(1_000, 100))
    assert [mint.mint_id for mint in told.mints] == [f"{n:04}" for n in range(1_000)]


def test_a_snapshot_that_does_not_fit_holds_the_newest() -> None:
    told = snapshot(mints(1_000, 9_000))
    assert MAX_MESSAGE_BYTES // 2 < told.ByteSize() < MAX_MESSAGE_BYTES - 1024
    ids = [mint.mint_id for mint in told.mints]
    assert ids == [f"{n:04}" for n in range(1_000 - len(ids), 1_000)]
