"""The chassis every service stands on; it knows no service.

Two halves. The RPC half serves and calls: identity, deadlines, policy, validation, typed errors,
traces. The data half keeps what must not be lost: transactions that survive contention
(`db`), schema changes under a lock (`migrate`), group commit (`batching`), effects remembered by
request id (`idempotency`) and a durable queue (`outbox`).

Invariants:
- A domain error crosses the wire as the same class (`errors`).
- Whatever is enqueued commits with the data that asked for it, is handled at least once, and is
  settled exactly once.
- The OS clock and random ids come from `clock` alone; leases and expiries use the database's time.
"""
