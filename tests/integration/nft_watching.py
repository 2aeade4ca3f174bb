"""What a watcher knows, checked message by message: no gap, no step back that was not announced."""

from go2asia.nft.v1 import nft_pb2

ON_CHAIN = ["SUBMITTED", "ACCEPTED", "MINTED", "FINALIZED"]


class Knowledge:
    """The fold of one watcher's messages, over as many streams as it takes.

    `token` opens the next stream; `rollbacks` counts the announced steps back.
    """

    def __init__(self) -> None:
        self.mints: dict[str, nft_pb2.Mint] = {}
        self.token = ""
        self.rollbacks = 0

    def fold(self, message: nft_pb2.WatchMintStatusResponse) -> None:
        """Takes one message in; fails on one that must not come."""
        if message.HasField("snapshot"):
            assert not self.token, "a snapshot came where the token should have carried on"
            self.mints = {mint.mint_id: mint for mint in message.snapshot.mints}
        elif message.HasField("change"):
            self._apply(message.change)
        self.token = message.resume_token

    def _apply(self, change: nft_pb2.MintChange) -> None:
        before = self.mints.get(change.mint.mint_id, nft_pb2.Mint())
        assert change.mint.version == before.version + 1, "a gap, or told twice"
        assert change.previous_state == before.state
        was, now = (
            nft_pb2.MintState.Name(state).removeprefix("MINT_STATE_")
            for state in (before.state, change.mint.state)
        )
        assert was != "FINALIZED", "what is final has moved"
        if was in ON_CHAIN and now in ON_CHAIN and ON_CHAIN.index(now) < ON_CHAIN.index(was):
            assert change.rollback, f"{was} → {now} was not announced"
        self.rollbacks += change.rollback
        self.mints[change.mint.mint_id] = change.mint
