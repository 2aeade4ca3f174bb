"""The Chain Gateway: the only service that speaks to TON.

It owns operations (mints on their way to the chain), the messages of its minting wallet, item
indices, and the links between users and their wallets.

Invariants:
- An order is durable, with its idempotency key, before the answer; a mint id is ordered once.
- Index, owner and content of an item are frozen in the transaction that persists the first message
  which carries it, and that commits before anything is sent. Every retry uses the same index, and
  deploying on to an initialised item changes nothing: so a mint exists at most once.
- The chain alone decides what happened: MINTED means that the item at the computed address holds
  our content, FINALIZED that it was seen so in a block beyond rollback.
- A query id of the wallet is used again only after the wallet has forgotten it.
- Every change of an operation is reported to NFT, in the transaction that makes it.
"""
