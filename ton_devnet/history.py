"""OldMcBlocksInfo: the hashes of all earlier masterchain blocks.

It grows by one leaf a block for ever, so full runs of blocks well behind the head are collapsed to
their top digests; memory and restart then hardly depend on the age of the chain.
"""

from ton_devnet.blocks import HISTORY, KEY_BLOCK_SEQNO, BlockRef
from ton_devnet.cells import Digest
from ton_devnet.store import Group, Store
from ton_devnet.trie import Node, Trie, bits

GROUP = 1024
_MARGIN = 64
"""Runs nearer to the head than this stay whole, so that the last blocks can be undone."""
_PREFIX_WIDTH = HISTORY.width - (GROUP.bit_length() - 1)


def extend(history: Trie, ref: BlockRef) -> Trie:
    is_key = ref.seqno == KEY_BLOCK_SEQNO
    return history.set(ref.seqno, (is_key, ref), (is_key, ref.end_lt))


def collapse(history: Trie, head: int) -> tuple[Trie, Group | None]:
    """Fold the run that has just fallen `_MARGIN` blocks behind the head, if there is one.

    The first run stays whole: it holds the key block, and number 0 is missing from it.
    """
    number, behind = divmod(head - _MARGIN, GROUP)
    if behind or number < 2:
        return history, None
    number -= 1
    prefix = bits(number, _PREFIX_WIDTH)
    fork = history.subtree(prefix)
    assert fork is not None
    assert fork.left is not None
    assert fork.right is not None
    left, right = (fork.left.hash, fork.left.depth), (fork.right.hash, fork.right.depth)
    group = Group(number, fork.extra[1], left, right)
    return _graft(history, group), group


def _graft(history: Trie, group: Group) -> Trie:
    extra = (False, group.end_lt)
    node = Node(HISTORY, "", 0, extra, None, Digest(*group.left), Digest(*group.right))
    return history.graft(bits(group.number, _PREFIX_WIDTH), node)


def restore(store: Store, last: int) -> Trie:
    """The history up to and with block `last`."""
    history, first = Trie(HISTORY), 1
    groups = store.groups()
    if groups:
        for ref in store.master_refs(1, GROUP - 1):
            history = extend(history, ref)
        for group in groups:
            history = _graft(history, group)
        first = (groups[-1].number + 1) * GROUP
    for ref in store.master_refs(first, last):
        history = extend(history, ref)
    return history
