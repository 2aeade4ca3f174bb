"""A local TON network: the real TVM behind a real lite-server (ADNL over TCP), for development.

Unmodified lite-clients talk to it as to any other network: blocks are linked and hashed, accounts
and transactions come with Merkle proofs, masterchain blocks are signed by the one validator.
Invariants: what a client was told is on disk; a process may die at any moment and the next one
goes on with the same chain; chain time never goes back.
"""
