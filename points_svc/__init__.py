"""The Points service: the soft-currency ledger.

It owns units, accounts, transactions, entries, lots, holds and seals, and keeps these promises; the
database enforces what it can, `VerifyLedger` recomputes all of them:

- the entries of a transaction sum to zero per unit;
- an account's posted balance is the sum of its entries, and each entry carries the balance it left;
- an account's versions count its entries without a gap;
- a user's available balance never goes below zero; what a user owes stands on a debt account;
- a user's lots together hold the user's balance, and change only under the account's lock;
- a hold is captured, released or expired once;
- reversals of a transaction together never exceed it;
- transactions, entries and lot changes are never changed or deleted, and seals prove it;
- a request id takes effect once, for ever.

A call goes `servicer` → `posting` (batches), `holding` or `reversing` → `booking` (one database
transaction) → `book` (decides) and `store` (reads and writes). `upkeep` books expiries and seals.
"""
