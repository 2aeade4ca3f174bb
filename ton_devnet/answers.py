"""What each liteServer.* query is answered with (lite_api.tl), from the chain."""

from collections.abc import Callable, Sequence
from typing import Any

from ton_devnet import proofs
from ton_devnet.blocks import (
    KEY_BLOCK_SEQNO,
    MASTERCHAIN,
    WHOLE_SHARD,
    Block,
    BlockId,
    Sealed,
    StateGoneError,
)
from ton_devnet.cells import BocError, Builder, Cell, from_boc, to_boc
from ton_devnet.chain import Chain
from ton_devnet.messages import MessageRejectedError, read_account
from ton_devnet.store import TransactionRow
from ton_devnet.validator import Validator

NOT_APPLIED, INVALID = 651, -400
VERSION, CAPABILITIES = 0x101, 7
MAX_TRANSACTIONS = 16
MAX_LISTED = 1024

Query = dict[str, Any]
Reply = tuple[str, dict[str, Any]]


class QueryError(Exception):
    """Answered as liteServer.error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Answers:
    """`take` is given each external message; it raises MessageRejectedError."""

    def __init__(self, chain: Chain, validator: Validator, take: Callable[[bytes], None]) -> None:
        self._chain, self._validator, self._take = chain, validator, take

    def table(self) -> dict[str, Callable[[Query], Reply]]:
        """Answer by query name; an answer is (TL type, fields)."""
        return {
            "getMasterchainInfo": self._masterchain_info,
            "getMasterchainInfoExt": self._masterchain_info_ext,
            "getTime": self._time,
            "getVersion": self._version,
            "sendMessage": self._send_message,
            "getBlock": self._block,
            "getBlockHeader": self._block_header,
            "lookupBlock": self._lookup_block,
            "getAllShardsInfo": self._all_shards_info,
            "getShardBlockProof": self._shard_block_proof,
            "getBlockProof": self._block_proof,
            "getConfigAll": self._config_all,
            "getAccountState": self._account_state,
            "runSmcMethod": self._run_smc_method,
            "getLibraries": self._libraries,
            "getTransactions": self._transactions,
            "getOneTransaction": self._one_transaction,
            "listBlockTransactions": self._list_block_transactions,
            "listBlockTransactionsExt": self._list_block_transactions_ext,
            "getConfigParams": self._config_all,
        }

    # The network

    def _masterchain_info(self, _query: Query) -> Reply:
        master = self._chain.head.master
        info = {"last": _id(master.id), "state_root_hash": _state_hash(master).hex()}
        return "masterchainInfo", info | {"init": self._init()}

    def _masterchain_info_ext(self, _query: Query) -> Reply:
        head, now = self._chain.head, self._chain.now()
        about = {"mode": 0, "version": VERSION, "capabilities": CAPABILITIES, "now": now}
        state = _state_hash(head.master).hex()
        last = {"last": _id(head.master.id), "last_utime": head.step.utime}
        return "masterchainInfoExt", about | last | {
            "state_root_hash": state,
            "init": self._init(),
        }

    def _init(self) -> dict[str, Any]:
        id = self._chain.key_block.master.id
        return {
            "workchain": MASTERCHAIN,
            "root_hash": id.root_hash.hex(),
            "file_hash": id.file_hash.hex(),
        }

    def _time(self, _query: Query) -> Reply:
        return "currentTime", {"now": self._chain.now()}

    def _version(self, _query: Query) -> Reply:
        about = {"mode": 0, "version": VERSION, "capabilities": CAPABILITIES}
        return "version", about | {"now": self._chain.now()}

    def _send_message(self, query: Query) -> Reply:
        try:
            self._take(query["body"])
        except MessageRejectedError as error:
            raise QueryError(0, str(error)) from None
        return "sendMsgStatus", {"status": 1}

    # Blocks

    def _block(self, query: Query) -> Reply:
        sealed, _ = self._named(query["id"])
        return "blockData", {"id": _id(sealed.id), "data": self._chain.store.block_boc(sealed.id)}

    def _block_header(self, query: Query) -> Reply:
        return self._header(self._named(query["id"])[0])

    def _lookup_block(self, query: Query) -> Reply:
        mode, store = query["mode"], self._chain.store
        seqno: int | None = query["id"]["seqno"]
        if mode & 2:
            seqno = store.first_ending_at(query["lt"])
        elif mode & 4:
            seqno = store.last_made_at(query["utime"])
        block = self._at(seqno or 0)
        is_master = query["id"]["workchain"] == MASTERCHAIN
        return self._header(block.master if is_master else block.shard)

    def _header(self, sealed: Sealed) -> Reply:
        proof = to_boc(proofs.header(sealed))
        return "blockHeader", {"id": _id(sealed.id), "mode": 0, "header_proof": proof}

    def _all_shards_info(self, query: Query) -> Reply:
        block = self._master(query["id"])
        extra = block.master.root.child(3, 3)
        data = Builder().uint(1, 1).ref(extra.refs[0]).cell()
        proof = to_boc(proofs.shards_in_block(block))
        return "allShardsInfo", {"id": _id(block.master.id), "proof": proof, "data": to_boc(data)}

    def _shard_block_proof(self, query: Query) -> Reply:
        sealed, block = self._named(query["id"])
        proof = to_boc(proofs.shards_in_block(block))
        links = [{"id": _id(sealed.id), "proof": proof}]
        return "shardBlockProof", {"masterchain_id": _id(block.master.id), "links": links}

    def _block_proof(self, query: Query) -> Reply:
        """A link back to the key block when the known one is another, then one link forward."""
        known, key = self._master(query["known_block"]), self._chain.key_block
        target = self._master(query["target_block"]) if query["mode"] & 1 else self._chain.head
        steps = []
        if known.step.seqno != KEY_BLOCK_SEQNO:
            steps.append(self._back(known, key))
        if target.step.seqno != KEY_BLOCK_SEQNO:
            steps.append(self._forward(key, target))
        ends = {"from": _id(known.master.id), "to": _id(target.master.id)}
        return "partialBlockProof", {"complete": True, **ends, "steps": steps}

    def _back(self, known: Block, key: Block) -> dict[str, Any]:
        header, state = proofs.shards(known)
        return {
            "@type": "liteServer.blockLinkBack",
            "to_key_block": True,
            "from": _id(known.master.id),
            "to": _id(key.master.id),
            "dest_proof": to_boc(proofs.header(key.master)),
            "proof": to_boc(header),
            "state_proof": to_boc(state),
        }

    def _forward(self, key: Block, target: Block) -> dict[str, Any]:
        signature = {
            "node_id_short": self._validator.node_id.hex(),
            "signature": self._validator.sign(target.master.id),
        }
        return {
            "@type": "liteServer.blockLinkForward",
            "to_key_block": False,
            "from": _id(key.master.id),
            "to": _id(target.master.id),
            "dest_proof": to_boc(proofs.header(target.master)),
            "config_proof": to_boc(proofs.key_block_config(key)),
            "signatures": {
                "@type": "liteServer.signatureSet.ordinary",
                "validator_set_hash": 0,
                "catchain_seqno": 0,
                "signatures": [signature],
            },
        }

    def _config_all(self, query: Query) -> Reply:
        block = self._master(query["id"])
        header, config = proofs.config(block)
        ids = {"mode": 0, "id": _id(block.master.id)}
        return "configInfo", ids | {"state_proof": to_boc(header), "config_proof": to_boc(config)}

    # Accounts

    def _account_state(self, query: Query) -> Reply:
        block = self._master(query["id"])
        address = _address(query["account"])
        shard_proof = proofs.shards(block)
        proof = proofs.account(block, address)
        account = self._account(address, block)
        return "accountState", {
            "id": _id(block.master.id),
            "shardblk": _id(block.shard.id),
            "shard_proof": to_boc(*shard_proof),
            "proof": to_boc(*proof),
            "state": to_boc(account) if account is not None and account.size > 1 else b"",
        }

    def _run_smc_method(self, query: Query) -> Reply:
        block, mode = self._master(query["id"]), query["mode"]
        address = _address(query["account"])
        reply: dict[str, Any] = dict.fromkeys(
            ("shard_proof", "proof", "state_proof", "init_c7", "lib_extras", "result")
        )
        reply |= {"mode": mode, "id": _id(block.master.id), "shardblk": _id(block.shard.id)}
        if mode & 1:
            reply["shard_proof"] = to_boc(*proofs.shards(block))
            reply["proof"] = to_boc(*proofs.account(block, address))
        if mode & 2:
            reply["state_proof"] = to_boc(Builder().cell())
        state = read_account(self._account(address, block) or Builder().uint(0, 1).cell())
        try:
            code, result = self._chain.engine.get_method(
                state, address, query["method_id"], query["params"], now=block.step.utime
            )
        except BocError as error:
            raise QueryError(INVALID, str(error)) from None
        reply["exit_code"] = code
        if mode & 4:
            reply["result"] = result
        return "runMethodResult", reply

    def _account(self, address: bytes, block: Block) -> Cell | None:
        if block.accounts is None:
            raise StateGoneError(block.step.seqno)
        boc = self._chain.store.account(address, block.step.seqno)
        return None if boc is None else from_boc(boc)[0].child(0)

    def _libraries(self, _query: Query) -> Reply:
        return "libraryResult", {"result": []}

    # Transactions

    def _transactions(self, query: Query) -> Reply:
        address, count = _address(query["account"]), min(query["count"], MAX_TRANSACTIONS)
        rows = self._chain.store.transactions_down_from(address, query["lt"], count)
        if not rows or rows[0].lt != query["lt"] or rows[0].hash.hex() != query["hash"].lower():
            raise QueryError(
                INVALID, "cannot locate the transaction with this logical time and hash"
            )
        blocks = [_id(self._chain.store.shard_id(row.seqno)) for row in rows]
        return "transactionList", {"ids": blocks, "transactions": _bag(rows)}

    def _one_transaction(self, query: Query) -> Reply:
        sealed = self._whole(query["id"])
        address = _address(query["account"])
        rows = self._chain.store.transactions_down_from(address, query["lt"], 1)
        reply = {"id": _id(sealed.id), "proof": b"", "transaction": b""}
        if rows and (rows[0].lt, rows[0].seqno) == (query["lt"], sealed.id.seqno):
            proof = to_boc(proofs.transactions(sealed, [address]))
            reply |= {"proof": proof, "transaction": rows[0].boc}
        return "transactionInfo", reply

    def _list_block_transactions(self, query: Query) -> Reply:
        rows, reply = self._list(query)
        reply["ids"] = [
            {"mode": 7, "account": row.address.hex(), "lt": row.lt, "hash": row.hash.hex()}
            for row in rows
        ]
        return "blockTransactions", reply

    def _list_block_transactions_ext(self, query: Query) -> Reply:
        rows, reply = self._list(query)
        return "blockTransactionsExt", reply | {"transactions": _bag(rows)}

    def _list(self, query: Query) -> tuple[list[TransactionRow], dict[str, Any]]:
        sealed = self._whole(query["id"])
        after, count = (b"", 0), min(query["count"], MAX_LISTED)
        if query["mode"] & 128:
            after = (bytes.fromhex(query["after"]["account"]), query["after"]["lt"])
        rows: list[TransactionRow] = []
        if sealed.id.workchain != MASTERCHAIN:
            rows = self._chain.store.transactions_in(sealed.id.seqno, after, count + 1)
        listed = rows[:count]
        found = [row.address for row in listed]
        proof = to_boc(proofs.transactions(sealed, found)) if listed else b""
        reply = {"id": _id(sealed.id), "req_count": query["count"], "proof": proof}
        return listed, reply | {"incomplete": len(rows) > count}

    # Which block

    def _at(self, seqno: int) -> Block:
        return _known(self._chain.block(seqno), seqno)

    def _whole(self, id: dict[str, Any]) -> Sealed:
        """With its transactions."""
        return _sealed(_known(self._chain.whole_block(id["seqno"]), id["seqno"]), id)

    def _named(self, id: dict[str, Any]) -> tuple[Sealed, Block]:
        block = self._at(id["seqno"])
        return _sealed(block, id), block

    def _master(self, id: dict[str, Any]) -> Block:
        if id["workchain"] != MASTERCHAIN:
            raise QueryError(INVALID, "name a masterchain block")
        return self._named(id)[1]


def _known(block: Block | None, seqno: int) -> Block:
    if block is None:
        raise QueryError(NOT_APPLIED, f"block {seqno} is not known (yet)")
    return block


def _sealed(block: Block, id: dict[str, Any]) -> Sealed:
    sealed = block.master if id["workchain"] == MASTERCHAIN else block.shard
    if sealed.id.root_hash.hex() != id["root_hash"].lower():
        raise QueryError(
            NOT_APPLIED, f"there is another block {id['seqno']} than the one asked for"
        )
    return sealed


def _id(id: BlockId) -> dict[str, Any]:
    return {
        "workchain": id.workchain,
        "shard": WHOLE_SHARD,
        "seqno": id.seqno,
        "root_hash": id.root_hash.hex(),
        "file_hash": id.file_hash.hex(),
    }


def _state_hash(sealed: Sealed) -> bytes:
    return sealed.root.child(2, 1).hash0


def _address(account: dict[str, Any]) -> bytes:
    if account["workchain"] != 0:
        raise QueryError(INVALID, "accounts of this network live in workchain 0")
    return bytes.fromhex(account["id"])


def _bag(rows: Sequence[TransactionRow]) -> bytes:
    return to_boc(*(from_boc(row.boc)[0] for row in rows)) if rows else b""
