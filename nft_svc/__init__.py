"""NFT: progress, levels, badge instances, the mint queue and the feed of mint status.

It owns what people have earned: the off-chain record is the truth about reputation, and the chain
shows a part of it. It never speaks to TON; the Chain Gateway does, and reports back.

Invariants:
- A reward is applied once per (caller, request id), in whichever form it comes, and taken back at
  most once; one taken back before it arrives does nothing when it does.
- Levels never fall through rewards, only through taking them back; the result does not depend on
  order or batching.
- A user has at most one instance of a type, and an instance at most one mint that is alive or done.
- Whatever is written on chain was frozen when the mint was queued, in the transaction that
  queued it.
- A mint's state follows the highest version of the Gateway's reports; FINALIZED never moves.
- Every change of a mint is in the feed, densely numbered in commit order.
- Every change of anything is in the audit log, which can only grow.
- The record is the truth about reputation, the chain about who owns an item; reconciliation holds
  the two against each other, in steps that a crash cannot lose, one run at a time.
"""
