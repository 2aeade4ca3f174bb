"""All SQL of the NFT service, by subject; every function works in its caller's transaction.

Hot, set-based statements hand Postgres arrays through the driver; the rest is SQLAlchemy Core.
"""
