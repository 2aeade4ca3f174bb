"""Connect against rule engines, job queues, and pgbench; see `__main__`."""
