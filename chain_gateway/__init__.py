"""The Chain Gateway: the only service that speaks to TON.

It owns operations (mints, transfers, changes of content and revocations on their way to the chain),
the messages of its minting wallet, item indices, and the links between users and their wallets.

Invariants:
- An order is durable, with its idempotency key, before the answer; a mint id is ordered once.
- Index, owner and content of an item are frozen in the transaction that persists the first message
  which carries it, and that commits before anything is sent. Every retry uses the same index, and
  deploying on to an initialised item changes nothing: so a mint exists at most once.
- The chain alone decides what happened: MINTED means that the item at the computed address says
  our mint id, our version of its content or a later one, or that it is revoked; for a transfer,
  that the wallet's transaction sent it. FINALIZED means that this was in a block beyond rollback.
- What acts on items may be sent again, because items take each mint and each version once. A
  transfer is sent again only where the wallet's transactions prove that it did not go out.
- A query id of the wallet is used again only after the wallet has forgotten it.
- Every change of an operation is reported to NFT, in the transaction that makes it.
"""
