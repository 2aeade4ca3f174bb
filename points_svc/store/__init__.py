"""All SQL of the ledger; everything here works within one transaction of the caller."""
