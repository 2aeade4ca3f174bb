"""The Points service: the soft-currency ledger.

It owns units, accounts, transactions and entries, and keeps these promises; the database enforces
what it can, `VerifyLedger` recomputes all of them:

- the entries of a transaction sum to zero per unit;
- an account's posted balance is the sum of its entries, and each entry carries the balance it left;
- an account's versions count its entries without a gap;
- a user's available balance never goes below the account's floor, which is zero;
- transactions and entries are never changed or deleted;
- a request id takes effect once, for ever.

A call goes `servicer` → `posting` (batches) → `ledger` (decides) and `store` (reads and writes).
"""
