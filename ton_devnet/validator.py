"""The one validator: its place in the configuration, its signatures under masterchain blocks."""

import hashlib

from nacl.signing import SigningKey

from ton_devnet.blocks import BlockId
from ton_devnet.cells import Builder, Cell
from ton_devnet.trie import PLAIN, Schema, Trie, read_dictionary

PUB_ED25519 = b"\xc6\xb4\x13\x48"
TON_BLOCK_ID = b"\x70\x6e\x0b\xc5"
"""TL constructor ids, little-endian: `pub.ed25519` and `ton.blockId`."""

CURRENT_VALIDATORS = 34
_FOREVER = 2**32 - 1
_VALIDATOR_LIST = Schema(16, lambda _a, _b: None, lambda _b, _e: None, Builder.append, None)


class Validator:
    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._public = bytes(key.verify_key)
        self.node_id = hashlib.sha256(PUB_ED25519 + self._public).digest()

    def sign(self, block: BlockId) -> bytes:
        message = TON_BLOCK_ID + block.root_hash + block.file_hash
        return bytes(self._key.sign(message).signature)

    def elected_in(self, config: Cell) -> Cell:
        """The configuration with this validator as its whole validator set (parameter 34)."""
        descr = Builder().uint(0x53, 8).raw(b"\x8e\x81\x27\x8a").raw(self._public).uint(1, 64)
        members = Trie(_VALIDATOR_LIST).set(0, descr.cell(), None)
        assert members.root is not None
        current = Builder().uint(0x12, 8).uint(0, 32).uint(_FOREVER, 32)
        current.uint(1, 16).uint(1, 16).uint(1, 64).uint(1, 1).ref(members.root.tree())
        params = Trie(PLAIN)
        for number, leaf in read_dictionary(config, PLAIN.width):
            params = params.set(number, leaf.ref(), None)
        root = params.set(CURRENT_VALIDATORS, current.cell(), None).root
        assert root is not None
        return root.tree()
