"""The highload wallet: its key is guarded, its messages fit, its memory is read like its own."""

from pathlib import Path

import pytest
from pytoniq.contract.wallets.highload_v3 import HighloadWalletV3
from pytoniq_core.boc.cell import Cell
from pytoniq_core.boc.hashmap.hashmap import HashMap
from pytoniq_core.tlb.custom.wallet import HighloadWalletV3Data
from pytoniq_core.tlb.transaction import MessageAny

from chain_gateway import content, query_id
from chain_gateway.cells import build, internal
from chain_gateway.items import Collection, mint
from chain_gateway.wallet import (
    MAX_ACTIONS,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_DEPTH,
    ActionList,
    HighloadWallet,
    MintingKey,
    WalletState,
)
from mesh.config import ConfigurationError

KEY = MintingKey(b"\x01" * 32)
WALLET = HighloadWallet(KEY, 3600)
COLLECTION = Collection(WALLET.address, name="Test", description="", image="")


def minting(index: int, owner: str, cell: Cell) -> Cell:
    mint_id = f"0192f7a2-0000-7000-8000-{index:012x}"
    return mint(
        COLLECTION.address, index=index, owner=owner, content=cell, mint_id=mint_id, query_id=1
    )


def fill(text: str) -> ActionList:
    """As many mints as fit, each with this description."""
    actions = ActionList()
    for index in range(MAX_ACTIONS + 1):
        cell = content.encode(
            {"name": "n", "description": text + str(index), "mint_id": str(index)}
        )
        owner = f"0:{index:064x}"
        if not actions.add(minting(index, owner, cell)):
            break
    return actions


@pytest.mark.parametrize("length", [0, 100, 1_000, 4_000, 8_000])
def test_a_full_message_is_one_the_network_takes(length: int) -> None:
    actions = fill("x" * length)
    boc = WALLET.external(actions, query=5, created_at=1, deploy=True)
    assert len(boc) <= MAX_MESSAGE_BYTES
    assert Cell.one_from_boc(boc).get_depth(0) <= MAX_MESSAGE_DEPTH
    # Full, or nearly: no more than one mint and the envelope's allowance are left unused.
    assert actions.count == MAX_ACTIONS or len(boc) > MAX_MESSAGE_BYTES - length - 2_000


def test_short_mints_fill_all_actions() -> None:
    assert fill("").count == MAX_ACTIONS


def test_what_does_not_fit_leaves_the_list_as_it_was() -> None:
    actions = fill("x" * 8_000)
    before, count = actions.cell.hash, actions.count
    cell = content.encode({"description": "y" * 8_000})
    assert not actions.add(minting(0, WALLET.address, cell))
    assert (actions.cell.hash, actions.count) == (before, count)


def test_address_is_the_one_the_library_computes_at_its_fixed_timeout() -> None:
    data = HighloadWalletV3.create_data_cell(KEY.public, wallet_id=0x10AD)
    theirs = HighloadWalletV3Data.deserialize(data.begin_parse())
    assert theirs.timeout == 3600
    boc = WALLET.external(ActionList(), query=1, created_at=1, deploy=True)
    message = MessageAny.deserialize(Cell.one_from_boc(boc).begin_parse())
    assert message.init.data.hash == data.hash
    assert message.init.serialize().hash.hex() == WALLET.address.removeprefix("0:")


def test_another_timeout_is_another_wallet() -> None:
    assert HighloadWallet(KEY, 60).address != WALLET.address


def state_of(old: list[int], current: list[int], cleaned: int, timeout: int = 100) -> WalletState:
    def shifts(queries: list[int]) -> Cell | None:
        bits: dict[int, set[int]] = {}
        for query in queries:
            shift, bit = query_id.unpack(query)
            bits.setdefault(shift, set()).add(bit)
        dictionary = HashMap(13, value_serializer=lambda cell, into: into.store_ref(cell))
        for shift, ones in bits.items():
            text = "".join("1" if bit in ones else "0" for bit in range(1023))
            dictionary.set_int_key(shift, build().store_bits(text).end_cell())
        return dictionary.serialize()

    data = build().store_bytes(bytes(32)).store_uint(1, 32)
    data.store_dict(shifts(old)).store_dict(shifts(current))
    return WalletState(data.store_uint(cleaned, 64).store_uint(timeout, 22).end_cell())


def test_the_wallet_remembers_for_one_to_two_timeouts() -> None:
    first, second = query_id.from_sequence(0), query_id.from_sequence(1024)
    state = state_of([first], [second], cleaned=1_000)
    assert [state.processed(query, 1_100) for query in (first, second)] == [True, True]
    assert [state.processed(query, 1_101) for query in (first, second)] == [False, True]
    assert [state.processed(query, 1_201) for query in (first, second)] == [False, False]
    assert not state.processed(query_id.from_sequence(2), 1_000)


def test_the_key_shows_itself_nowhere(tmp_path: Path) -> None:
    seed = bytes(range(32))
    file = tmp_path / "key"
    file.write_text(seed.hex() + "\n")
    file.chmod(0o600)
    key = MintingKey.load(file)
    assert seed.hex() not in repr(key) + str(key) + repr(HighloadWallet(key, 60))
    assert key.public == MintingKey(seed).public


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("00" * 32, 0o644, "chmod 600"),
        ("00" * 31, 0o600, "64 hex digits"),
        ("no key", 0o600, "64 hex digits"),
    ],
)
def test_a_bad_key_file_is_explained(tmp_path: Path, text: str, mode: int, said: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match=said):
        MintingKey.load(file)
    with pytest.raises(ConfigurationError, match="GATEWAY_WALLET_KEY_FILE"):
        MintingKey.load(tmp_path / "missing")


def test_an_inline_body_and_one_in_its_own_cell_are_both_messages() -> None:
    deployment = MessageAny.deserialize(COLLECTION.deployment().begin_parse())
    for init in (None, deployment.init):
        cell = internal(WALLET.address, 5, build().store_uint(7, 32).end_cell(), init=init)
        message = MessageAny.deserialize(cell.begin_parse())
        assert message.info.value_coins == 5
        assert message.body.begin_parse().load_uint(32) == 7
