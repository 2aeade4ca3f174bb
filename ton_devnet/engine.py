"""The TVM behind two calls: run a message against an account, run a get method.

tonpy wraps the reference C++ implementation. It speaks base64, prints to stderr unless silenced,
and raises RuntimeError where the reference says "not accepted"; all of that stays in this file.
"""

import base64
from dataclasses import dataclass
from typing import Any

import tonpy
from tonpy.libs.python_ton import (
    PyCell,
    PyEmulator,
    globalSetVerbosity,
    load_as_cell_slice,
    parse_string_to_cell,
)
from tonpy.types.stack import Stack

from ton_devnet.cells import BocError, Builder, Cell, from_boc, to_boc
from ton_devnet.messages import AccountState, read_account, read_inbound, read_state_init
from ton_devnet.trie import read_dictionary

GET_METHOD_GAS = 1_000_000
EXTERNAL_GAS_CREDIT = 10_000
C7_MAGIC = 0x076EF1EA
NO_CONTRACT = -256
"""Exit code a lite-server gives for a get method on an account without code."""
VM_VERBOSITY = 1

globalSetVerbosity(0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A transaction and the account after it. `account` is the engine's own handle on the cell."""

    account: PyCell
    account_boc: bytes
    transaction_boc: bytes


class Engine:
    """Executes under one blockchain configuration. Not thread safe: threads gain nothing here."""

    def __init__(self, config: Cell) -> None:
        self._config = _tonpy(config)
        self._unpacked = _unpacked_config(config)
        self._emulator = PyEmulator(self._config.cell)

    def execute(
        self, account: PyCell, message_boc: bytes, *, now: int, lt: int, seed: bytes
    ) -> Outcome | None:
        """Run one message. None: the contract did not accept it, so nothing happened.

        `account` is a ShardAccount, `now` unix seconds, `lt` the block's start; `seed` (32 bytes)
        makes the contract's randomness repeatable.
        """
        emulator = self._emulator
        emulator.set_rand_seed(seed.hex())
        try:
            accepted = emulator.emulate_transaction(
                account, engine_cell(message_boc), str(now), str(lt), VM_VERBOSITY, False
            )
        except RuntimeError:
            return None
        if not accepted:
            return None
        after = emulator.account_cell
        return Outcome(after, _boc(after), _boc(emulator.transaction_cell))

    def refusal(self, account_boc: bytes, message: Cell, *, now: int) -> int | None:
        """Exit code with which the contract refuses this external message; None: no code there."""
        inbound = read_inbound(message)
        state = read_account(from_boc(account_boc)[0].child(0))
        if state.code is None and inbound.init is not None:
            code, data = read_state_init(inbound.init)
            state = AccountState(state.balance, code, data)
        if state.code is None:
            return None
        vm = self._vm(state, inbound.address, now)
        vm.set_gas_limit(EXTERNAL_GAS_CREDIT, GET_METHOD_GAS)
        body = _tonpy(inbound.body).begin_parse()
        vm.set_stack([state.balance, 0, _tonpy(message), body, -1])
        vm.run(unpack_stack=False, allow_non_success=True)
        return int(~vm.tvm.exit_code)

    def get_method(
        self, state: AccountState, address: bytes, method: int, stack_boc: bytes, *, now: int
    ) -> tuple[int, bytes]:
        """(exit code, resulting VmStack BoC). Raises BocError when the given one is unreadable."""
        if state.code is None:
            return NO_CONTRACT, b""
        vm = self._vm(state, address, now)
        vm.set_gas_limit(GET_METHOD_GAS, GET_METHOD_GAS)
        stack = Stack()
        try:
            if stack_boc:
                given = tonpy.Cell(base64.b64encode(stack_boc).decode())
                stack = Stack.deserialize(given.begin_parse())
        except (RuntimeError, ValueError) as error:
            raise BocError(f"params are not a VmStack: {error}") from None
        stack.append(method)
        vm.set_stack(stack)
        result = vm.run(unpack_stack=False, allow_non_success=True)
        return ~vm.tvm.exit_code, base64.b64decode(result.serialize(eoln=False).to_boc())

    def _vm(self, state: AccountState, address: bytes, now: int) -> Any:
        code = _tonpy(state.code or Builder().cell())
        vm = tonpy.TVM(code=code, data=_tonpy(state.data or Builder().cell()), log_level=0)
        myself = tonpy.begin_cell().store_address(tonpy.Address("0:" + address.hex()))
        # A plain list: tonpy's own C7 class leaves the unpacked configuration out, and every
        # opcode that asks for prices (GETGASFEE and its kin) then fails with exit code 7.
        vm.set_c7(
            [
                C7_MAGIC,
                0,
                0,
                now,
                0,
                0,
                int.from_bytes(address, "big"),
                [state.balance, None],
                myself.end_cell().begin_parse(),
                self._config,
                code,
                [0, None],
                0,
                None,
                self._unpacked,
                0,
                None,
            ]
        )
        return vm


def parse_config(text: str) -> Cell:
    """A blockchain configuration (parameter dictionary) from a base64 bag of cells."""
    return from_boc(base64.b64decode(text))[0]


def engine_cell(boc: bytes) -> PyCell:
    return parse_string_to_cell(base64.b64encode(boc).decode())


@dataclass(frozen=True, slots=True)
class ShardAccount:
    """The parts of a ShardAccount a state tree needs."""

    account_hash: bytes
    account_depth: int
    last_transaction_hash: bytes
    last_transaction_lt: int
    balance: int


def read_shard_account(account: PyCell) -> ShardAccount:
    """Read through the engine: it has the hashes already, so big contracts cost nothing."""
    outer = load_as_cell_slice(account, False)
    inner = outer.fetch_ref()
    last_hash = int(outer.load_uint(256)).to_bytes(32, "big")
    last_lt = int(outer.load_uint(64))
    balance = _balance(load_as_cell_slice(inner, False))
    return ShardAccount(
        bytes.fromhex(inner.get_hash()), inner.get_depth(), last_hash, last_lt, balance
    )


def _balance(account: Any) -> int:
    if not int(account.load_uint(1)):
        return 0
    account.load_addr()
    for _ in range(2):  # StorageUsed: cells, bits
        account.skip_bits(8 * int(account.load_uint(3)), False)
    account.skip_bits(32 + (256 if int(account.load_uint(3)) else 0), False)
    if int(account.load_uint(1)):
        account.skip_bits(8 * int(account.load_uint(4)), False)
    account.skip_bits(64, False)
    return int(account.load_uint(8 * int(account.load_uint(4))) or 0)


def _boc(cell: PyCell) -> bytes:
    return base64.b64decode(cell.to_boc())


def _tonpy(cell: Cell) -> tonpy.Cell:
    return tonpy.Cell(base64.b64encode(to_boc(cell)).decode())


def _unpacked_config(config: Cell) -> list[Any]:
    """The tuple TVM keeps in c7[14]: storage prices, then parameters 19, 20, 21, 24, 25, 43."""
    params = {key: leaf.ref() for key, leaf in read_dictionary(config, 32)}
    *_, (_, prices) = read_dictionary(params[18], 32)
    cells = [prices.rest(), *(params.get(number) for number in (19, 20, 21, 24, 25, 43))]
    return [None if cell is None else _tonpy(cell).begin_parse() for cell in cells]
