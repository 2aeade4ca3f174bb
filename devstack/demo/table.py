"""Shows how the demo goes: a live table on a terminal, a line every few seconds elsewhere."""

from collections import Counter
from dataclasses import dataclass, field

from go2asia.connect.v1 import reward_actions_pb2
from go2asia.nft.v1 import nft_pb2
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from devstack.demo.audit import latest
from devstack.demo.play import Played
from mesh.clock import monotonic

PLAIN_EVERY_SECONDS = 2.0
MINT_STATES = ("QUEUED", "AWAITING_WALLET", "SUBMITTED", "ACCEPTED", "MINTED", "FINALIZED")


@dataclass
class Progress:
    """What the table shows."""

    played: Played
    lines: int
    actions: reward_actions_pb2.CountRewardActionsResponse = field(
        default_factory=reward_actions_pb2.CountRewardActionsResponse
    )
    mints: dict[str, nft_pb2.Mint] = field(default_factory=dict)
    expected_mints: int = 0

    def levels_on_chain(self) -> dict[tuple[str, str], int]:
        """Return the level that each user's badge has on chain beyond any rollback, by its type."""
        final = nft_pb2.MINT_STATE_FINALIZED
        last = latest(mint for mint in self.mints.values() if mint.state == final)
        return {(mint.user_id, mint.nft_type): mint.level for mint in last.values()}

    def mint_states(self) -> Counter[str]:
        """Return how many mints stand in each state."""
        return Counter(
            nft_pb2.MintState.Name(mint.state).removeprefix("MINT_STATE_")
            for mint in self.mints.values()
        )


class Display:
    """Keeps the progress in sight; use as a context manager and call `refresh` often."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._shown = ""
        self._shown_at = 0.0

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.refresh(last=True)
        if self._console.is_terminal:
            self._live.stop()

    def refresh(self, last: bool = False) -> None:
        """Show the present progress."""
        if self._console.is_terminal:
            self._live.update(self._table(), refresh=True)
            return
        due = monotonic() - self._shown_at >= PLAIN_EVERY_SECONDS
        text = self._text()
        if text != self._shown and (due or last):
            self._shown, self._shown_at = text, monotonic()
            self._console.print(text, soft_wrap=True, highlight=False)

    def _text(self) -> str:
        played, actions = self.progress.played, self.progress.actions
        states = self.progress.mint_states()
        mints = " ".join(f"{state.lower()}={states[state]}" for state in states) or "none yet"
        return (
            f"  events {played.sent}/{self.progress.lines}   actions {actions.completed} done, "
            f"{actions.pending + actions.dispatched} open, {actions.failed} failed   mints {mints}"
        )

    def _table(self) -> Group:
        played, actions = self.progress.played, self.progress.actions
        states = self.progress.mint_states()
        flow = Table(title="events and actions", expand=False)
        for name in ("sent", "accepted", "duplicate", "rejected", "open", "done", "failed"):
            flow.add_column(name, justify="right")
        open_actions = actions.pending + actions.dispatched
        numbers = (
            f"{played.sent}/{self.progress.lines}", played.accepted, played.duplicates,
            len(played.rejected), open_actions, actions.completed, actions.failed,
        )  # fmt: skip
        flow.add_row(*map(str, numbers))
        mints = Table(title=f"mints, {self.progress.expected_mints} expected", expand=False)
        for state in (*MINT_STATES, "FAILED"):
            mints.add_column(state.lower().replace("_", " "), justify="right")
        mints.add_row(*(str(states[state]) for state in (*MINT_STATES, "FAILED")))
        return Group(flow, mints)
