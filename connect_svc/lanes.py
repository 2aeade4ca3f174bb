"""The queue of reward actions, on their way out or back, and its lanes, two a target."""

from datetime import timedelta

from connect_svc.tables import reward_queue
from mesh.outbox import Queue

POINTS = "points"
NFT = "nft"
GATEWAY = "gateway"

# Which target carries out which kind of command.
LANES = {
    "credit_points": POINTS,
    "debit_points": POINTS,
    "increment_progress": NFT,
    "grant_nft": NFT,
    "mint_onchain": NFT,
    "send_ton": GATEWAY,
}

POINTS_REVERSALS = "points-reversals"
NFT_REVERSALS = "nft-reversals"
GATEWAY_REVERSALS = "gateway-reversals"

# Where what was sent on a lane is taken back.
REVERSALS = {
    POINTS: POINTS_REVERSALS,
    NFT: NFT_REVERSALS,
    GATEWAY: GATEWAY_REVERSALS,
}

# Longer than a call with all its retries (10 seconds by the contract) and the commit after it.
LEASE = timedelta(seconds=30)

# With five minutes between the later attempts, about two days of an outage. Someone looks by then.
MAX_ATTEMPTS = 1_000

QUEUE = Queue(reward_queue, lease=LEASE, max_attempts=MAX_ATTEMPTS)
