"""Merkle proofs a lite-client checks: block headers, states, transactions, configuration."""

from collections.abc import Callable, Iterable

from ton_devnet.blocks import Block, Sealed, StateGoneError
from ton_devnet.cells import Cell, Hashed, Reader, merkle_proof, pruned

# References of a block: info, value flow, state update, extra. Of its extra: in-messages,
# out-messages, account blocks, masterchain extra. Of a state: queue, accounts, totals, custom.


def header(block: Sealed) -> Cell:
    """Block info and state update; the rest pruned."""
    info, flow, update, extra = block.root.refs
    return merkle_proof(block.root.with_refs([info, pruned(flow), update, pruned(extra)]))


def account(block: Block, address: bytes) -> tuple[Cell, Cell]:
    """(header proof, state proof) for one account of a block within the window."""
    state, accounts = _state(block.shard), block.accounts
    if accounts is None:
        raise StateGoneError(block.step.seqno)
    path = accounts.proof(int.from_bytes(address, "big"))
    queue, _, totals = state.refs
    return header(block.shard), merkle_proof(state.with_refs([pruned(queue), path, pruned(totals)]))


def shards(block: Block) -> tuple[Cell, Cell]:
    """(header proof, state proof) that this masterchain block names its shard block."""
    custom = _state(block.master).child(3)
    shard_list, config, inner = custom.refs
    kept = custom.with_refs([shard_list, pruned(config), _without_history(inner)])
    return header(block.master), _master_state(block, kept)


def shards_in_block(block: Block) -> Cell:
    """The same from the block alone; works for every block there ever was."""
    extra = block.master.root.child(3, 3)
    first, *others = extra.refs
    return _master_block(block, extra.with_refs([first, *map(pruned, others)]))


def config(block: Block) -> tuple[Cell, Cell]:
    """(header proof, state proof) with the whole configuration."""
    custom = _state(block.master).child(3)
    shard_list, whole, inner = custom.refs
    kept = custom.with_refs([pruned(shard_list), whole, _without_history(inner)])
    return header(block.master), _master_state(block, kept)


def key_block_config(block: Block) -> Cell:
    """The configuration inside a key block, from which validators are read."""
    extra = block.master.root.child(3, 3)
    shard_list, signatures, whole = extra.refs
    return _master_block(block, extra.with_refs([pruned(shard_list), pruned(signatures), whole]))


def transactions(block: Sealed, addresses: Iterable[bytes]) -> Cell:
    """That these accounts have these transactions in the block; the transactions pruned."""
    info, flow, update, _ = block.root.refs
    extra = block.root.child(3)
    inbound, outbound, blocks, *custom = extra.refs
    wanted = {format(int.from_bytes(address, "big"), "0256b") for address in addresses}
    dictionary = extra.child(2)
    kept = dictionary.with_refs([_account_blocks(dictionary.child(0), wanted)])
    assert blocks is dictionary
    refs = [pruned(inbound), pruned(outbound), kept, *map(pruned, custom)]
    return merkle_proof(block.root.with_refs([info, pruned(flow), update, extra.with_refs(refs)]))


def _account_blocks(root: Cell, wanted: set[str]) -> Cell:
    def keep(edge: Cell, reader: Reader) -> Cell:
        reader.uint(4 + 1 + 4 + 256)  # value of the augmentation, tag and address
        *inner, update = edge.refs
        trimmed = _walk(edge.with_refs(inner), reader, 64, None, _prune_leaf)
        return trimmed.with_refs([*trimmed.refs, update])

    return _walk(root, Reader(root), 256, wanted, keep)


def _prune_leaf(edge: Cell, _reader: Reader) -> Cell:
    return edge.with_refs([pruned(ref) for ref in edge.refs])


def _walk(
    edge: Cell,
    reader: Reader,
    span: int,
    wanted: set[str] | None,
    leaf: Callable[[Cell, Reader], Cell],
) -> Cell:
    """Copy the paths to the wanted keys (None: all) of a dictionary; prune the others."""
    label = reader.label(span)
    if wanted is not None:
        wanted = {key[len(label) :] for key in wanted if key.startswith(label)}
        if not wanted:
            return pruned(edge)
    if len(label) == span:
        return leaf(edge, reader)
    refs: list[Hashed] = []
    for bit in range(2):
        child, below = edge.child(bit), wanted
        if wanted is not None:
            below = {key[1:] for key in wanted if key[0] == str(bit)}
        refs.append(_walk(child, Reader(child), span - len(label) - 1, below, leaf))
    return edge.with_refs(refs)


def _state(block: Sealed) -> Cell:
    if block.state is None:
        raise StateGoneError(block.id.seqno)
    return block.state


def _without_history(inner: Hashed) -> Cell:
    assert isinstance(inner, Cell)
    return inner.with_refs([pruned(ref) for ref in inner.refs])


def _master_state(block: Block, custom: Cell) -> Cell:
    state = _state(block.master)
    queue, accounts, totals, _ = state.refs
    return merkle_proof(state.with_refs([pruned(queue), pruned(accounts), pruned(totals), custom]))


def _master_block(block: Block, custom: Cell) -> Cell:
    root, extra = block.master.root, block.master.root.child(3)
    kept = extra.with_refs([*map(pruned, extra.refs[:3]), custom])
    info, flow, update, _ = root.refs
    return merkle_proof(root.with_refs([info, pruned(flow), update, kept]))
