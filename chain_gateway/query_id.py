"""Query ids of the highload wallet v3: pairs of a shift (13 bits) and a bit number (10 bits). Pure.

The wallet keeps one bit string of 1,023 bits per shift, so bit number 1,023 does not exist; using
it exits with code 9. The last shift is never given to the pipeline: an operator's message, such as
the deployment of the collection, always finds a free query id there without asking the database.
"""

BITS_PER_SHIFT = 1_023
OPERATOR_SHIFT = 8_191

CAPACITY = OPERATOR_SHIFT * BITS_PER_SHIFT
"""Query ids that the pipeline has before it must use one again."""

# A query is remembered for at least one and at most two time-outs after the wallet ran it, plus one
# for a wallet that cleans late because nothing is sent, plus the one in which it could still run.
_REUSE_AFTER_TIMEOUTS = 4


def from_sequence(sequence: int) -> int:
    """The query id of the pipeline's message number `sequence`, counted from 0."""
    shift, bit = divmod(sequence % CAPACITY, BITS_PER_SHIFT)
    return pack(shift, bit)


def operator_ids() -> range:
    """The query ids reserved for operators' messages."""
    return range(pack(OPERATOR_SHIFT, 0), pack(OPERATOR_SHIFT, BITS_PER_SHIFT - 1) + 1)


def pack(shift: int, bit: int) -> int:
    """The 23-bit query id; raises ValueError for a pair the wallet does not accept."""
    if not (0 <= shift <= OPERATOR_SHIFT and 0 <= bit < BITS_PER_SHIFT):
        raise ValueError(f"shift {shift}, bit {bit}: the wallet has shifts to 8191, bits to 1022")
    return shift << 10 | bit


def unpack(query_id: int) -> tuple[int, int]:
    """The (shift, bit) of a query id."""
    return query_id >> 10, query_id & 0x3FF


def reusable(created_at: int, timeout: int, chain_time: int) -> bool:
    """Whether a query id last used by a message of `created_at` is forgotten by the wallet.

    All in seconds of chain time.
    """
    return chain_time > created_at + _REUSE_AFTER_TIMEOUTS * timeout
