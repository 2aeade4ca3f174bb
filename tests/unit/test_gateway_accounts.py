"""Accounts are what a lite-server proves, and so is that there is none."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytoniq_core.boc.address import Address
from pytoniq_core.boc.cell import Cell
from pytoniq_core.proof.check_proof import ProofError

from chain_gateway.accounts import Account, read_account
from chain_gateway.errors import ChainUnavailable
from chain_gateway.ton import Chain as Network
from chain_gateway.transactions import Transaction
from tests.unit.devnet_chain import KEY, NOW, WALLET, open_chain, settle, transfer
from ton_devnet.answers import Answers
from ton_devnet.cells import from_boc, merkle_proof, pruned, to_boc
from ton_devnet.chain import Chain
from ton_devnet.validator import Validator

NOBODY = b"\x77" * 32


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    chain = open_chain(tmp_path / "db", crowd=50)
    chain.produce()
    return chain


def answer(chain: Chain, account: bytes) -> dict[str, Any]:
    head = chain.head.master.id
    query = {
        "id": {"workchain": -1, "seqno": head.seqno, "root_hash": head.root_hash.hex()},
        "account": {"workchain": 0, "id": account.hex()},
    }
    _, reply = Answers(chain, Validator(KEY), lambda _: None).table()["getAccountState"](query)
    return reply


def read(said: dict[str, Any], account: bytes, workchain: int = 0) -> Account:
    return read_account(said, Address((workchain, account)))


def test_what_is_there_and_what_is_not(chain: Chain) -> None:
    found = read(answer(chain, WALLET), WALLET)
    assert found.data is not None
    assert found.balance > 0
    assert found.time == NOW
    assert read(answer(chain, NOBODY), NOBODY) == Account(0, None, None, 0, b"", NOW)


def test_an_account_is_not_denied(chain: Chain) -> None:
    denied = answer(chain, WALLET) | {"state": b""}
    with pytest.raises(ProofError):
        read(denied, WALLET)


def test_another_path_does_not_show_that_an_account_is_not_there(chain: Chain) -> None:
    """It prunes the account's own; so does a proof without any path."""
    elsewhere = answer(chain, bytes([WALLET[0] ^ 0x80]) + WALLET[1:])
    with pytest.raises(ProofError, match="leaves out"):
        read(elsewhere | {"state": b""}, WALLET)
    header, proof = from_boc(elsewhere["proof"])
    state = proof.child(0)
    queue, accounts, *others = state.refs
    bare = merkle_proof(state.with_refs([queue, pruned(accounts), *others]))
    with pytest.raises(ProofError, match="leaves out"):
        read(elsewhere | {"proof": to_boc(header, bare), "state": b""}, WALLET)


def test_one_account_does_not_stand_for_another(chain: Chain) -> None:
    with pytest.raises(ProofError):
        read(answer(chain, NOBODY) | {"state": answer(chain, WALLET)["state"]}, NOBODY)
    with pytest.raises(ProofError, match="another shard"):
        read(answer(chain, NOBODY), NOBODY, workchain=-1)


def test_the_whole_account_is_there(chain: Chain) -> None:
    """A part that is left out would keep its hash within a proof, and be read as what it is not."""
    said = answer(chain, WALLET)
    [state] = from_boc(said["state"])
    cut = state.with_refs([pruned(ref) for ref in state.refs])
    with pytest.raises(ProofError):
        read(said | {"state": to_boc(cut)}, WALLET)


async def test_a_transaction_that_is_cut_short_is_none(chain: Chain) -> None:
    """What it sent would seem not to have been sent, and its hash within a proof stays the same."""
    chain.submit(transfer(1))
    settle(chain)
    account = read(answer(chain, WALLET), WALLET)
    [row, *_] = chain.store.transactions_down_from(WALLET, account.last_lt, 1)
    [whole] = from_boc(row.boc)
    cut = whole.with_refs([pruned(whole.refs[0]), *whole.refs[1:]])
    [found] = await history(to_boc(whole), account)
    assert found.hash == account.last_hash
    with pytest.raises(ChainUnavailable, match="another transaction"):
        await history(to_boc(cut), account)


async def history(boc: bytes, account: Account) -> list[Transaction]:
    """What the Gateway takes from a lite-server that answers with this as the only transaction."""
    told = SimpleNamespace(cell=Cell.one_from_boc(boc), prev_trans_lt=0, prev_trans_hash=b"")

    class Telling(Network):
        async def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
            return [told], []

    return await Telling({"liteservers": []}, 1).history("0:" + WALLET.hex(), account, 0)
