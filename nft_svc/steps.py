"""The steps of a reconciliation: what to look at next, and what a step came to. Pure.

A run has one step at a time, in a queue; the transaction that ends a step writes its outcome and
enqueues the next one, so a run goes on where it was, on whichever replica.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from nft_svc.definitions import TokenStandard
from nft_svc.reconcile import Finding, RepairState


class Phase(StrEnum):
    """What a step is about, in the order of a run."""

    CHAIN = "CHAIN"
    RECORD = "RECORD"
    REPAIR = "REPAIR"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run.

    In CHAIN it is the page `page_token` of the collection of `standard`, whose items below
    `next_index` were compared before; `collections` are those compared by then, the present one
    included once an item has told its address. `after` is the mint before the page in RECORD, and
    the number of the discrepancy before it in REPAIR; empty for the first page.

    `missing` are mints whose items the page before should have held; before anything else they are
    looked for at their addresses.
    """

    reconciliation_id: str
    report_only: bool
    number: int = 1
    phase: Phase = Phase.CHAIN
    standard: TokenStandard = TokenStandard.NFT
    page_token: str = ""
    next_index: int = 0
    collection: str = ""
    collections: tuple[str, ...] = ()
    after: str = ""
    missing: tuple[str, ...] = ()

    @property
    def item_id(self) -> str:
        """The step's id in the queue: one for each number, so that none is enqueued twice."""
        return f"{self.reconciliation_id}/{self.number}"

    def encode(self) -> bytes:
        """The step as the queue's payload."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(payload: bytes) -> "Step":
        """The step in a payload."""
        fields = json.loads(payload)
        fields["phase"] = Phase(fields["phase"])
        fields["standard"] = TokenStandard(fields["standard"])
        fields["collections"] = tuple(fields["collections"])
        fields["missing"] = tuple(fields.get("missing", ()))  # older steps have none
        return Step(**fields)

    def onward(self, after: str) -> "Step":
        """The next page of the same phase."""
        return replace(self, number=self.number + 1, after=after)

    def looked_for(self, count: int) -> "Step":
        """What comes once the first `count` of the missing were looked for."""
        return replace(self, number=self.number + 1, missing=self.missing[count:])

    def next_phase(self) -> "Step | None":
        """The first step of what comes after this phase and collection; None at the end.

        Collections come one after the other, before the record.
        """
        begun = replace(self, number=self.number + 1, page_token="", next_index=0, after="")
        standards = list(TokenStandard)
        match self.phase:
            case Phase.CHAIN if self.standard is not standards[-1]:
                following = standards[standards.index(self.standard) + 1]
                return replace(begun, standard=following, collection="")
            case Phase.CHAIN:
                return replace(begun, phase=Phase.RECORD)
            case Phase.RECORD if not self.report_only:
                return replace(begun, phase=Phase.REPAIR)
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of the repair of a discrepancy; `mint_id` is the change that was ordered."""

    discrepancy_id: int
    state: RepairState
    detail: str = ""
    mint_id: str | None = None


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step came to; the run is over if `following` is None."""

    following: Step | None
    findings: Sequence[Finding] = field(default_factory=list)
    items: int = 0
    mints: int = 0
