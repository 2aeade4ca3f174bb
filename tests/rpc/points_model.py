"""The ledger's rules once more, small and in memory: what the real one is held against.

Times are tiers: `None` never passes, a number is a moment in the far future until it `pass`es.
"""

from dataclasses import dataclass, field


class Refused(Exception):
    """The operation is refused with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(eq=False)
class Lot:
    """Points of one user that expire together; `lapsed` is what of it went to expiry."""

    user: str
    number: int
    tier: int | None
    remaining: int
    held: int = 0
    lapsed: int = 0

    @property
    def free(self) -> int:
        return self.remaining - self.held


@dataclass(eq=False)
class Booked:
    """A transaction: the lots it made and what it took out of others."""

    kind: str
    user: str
    amount: int
    recipient: str = ""
    made: list[Lot] = field(default_factory=list)
    taken: dict[Lot, int] = field(default_factory=dict)
    returned: dict[Lot, int] = field(default_factory=dict)
    reversed: int = 0


@dataclass(eq=False)
class Hold:
    """A reservation: how much of which lots."""

    user: str
    lots: dict[Lot, int]
    active: bool = True

    @property
    def amount(self) -> int:
        return sum(self.lots.values())


class Model:
    """All users' lots and debts."""

    def __init__(self) -> None:
        self.all_lots: list[Lot] = []
        self.debts: dict[str, int] = {}
        self.limits: dict[str, int] = {}
        self.past: set[int] = set()

    def lots(self, user: str) -> list[Lot]:
        """A user's lots, those that expire first before the others."""
        return sorted((lot for lot in self.all_lots if lot.user == user), key=self._order)

    def available(self, user: str) -> int:
        return sum(lot.free for lot in self.lots(user))

    def held(self, user: str) -> int:
        return sum(lot.held for lot in self.lots(user))

    def owed(self, user: str) -> int:
        return self.debts.get(user, 0)

    def award(self, user: str, amount: int, tier: int | None) -> Booked:
        made = self._credit(user, [(amount, tier)])
        return Booked("award", user, amount, made=made)

    def spend(self, user: str, amount: int) -> Booked:
        return Booked("spend", user, amount, taken=self._debit(user, amount))

    def transfer(self, user: str, recipient: str, amount: int) -> Booked:
        taken = self._debit(user, amount)
        parts: dict[int | None, int] = {}
        for lot, part in taken.items():
            parts[lot.tier] = parts.get(lot.tier, 0) + part
        overdrawn = amount - sum(taken.values())
        if overdrawn:
            parts[None] = parts.get(None, 0) + overdrawn
        made = self._credit(recipient, [(part, tier) for tier, part in parts.items()])
        return Booked("transfer", user, amount, recipient, made, taken)

    def place(self, user: str, amount: int) -> Hold:
        if self.available(user) < amount:
            raise Refused("INSUFFICIENT_FUNDS")
        reserved = {}
        for lot in self.lots(user):
            if part := min(lot.free, amount):
                lot.held += part
                amount -= part
                reserved[lot] = part
        return Hold(user, reserved)

    def capture(self, hold: Hold, amount: int) -> Booked:
        if not hold.active:
            raise Refused("HOLD_CLOSED")
        amount = amount or hold.amount
        if amount > hold.amount:
            raise Refused("HOLD_EXCEEDED")
        booked = Booked("capture", hold.user, amount)
        hold.active = False
        for lot in sorted(hold.lots, key=self._order):
            lot.held -= hold.lots[lot]
            if part := min(hold.lots[lot], amount):
                lot.remaining -= part
                amount -= part
                booked.taken[lot] = part
        self._lapse()
        return booked

    def release(self, hold: Hold) -> None:
        if not hold.active:
            raise Refused("HOLD_CLOSED")
        hold.active = False
        for lot, part in hold.lots.items():
            lot.held -= part
        self._lapse()

    def reverse(self, booked: Booked, amount: int) -> None:
        left = booked.amount - booked.reversed
        amount = amount or left
        if not 0 < amount <= left:
            raise Refused("REVERSAL_EXCEEDS")
        booked.reversed += amount
        if booked.kind in ("award", "transfer"):
            self._take_back(booked, booked.recipient or booked.user, amount)
        if booked.kind != "award":
            self._give_back(booked, amount)
        self._lapse()

    def pass_tier(self, tier: int) -> None:
        self.past.add(tier)
        self._lapse()

    def _debit(self, user: str, amount: int) -> dict[Lot, int]:
        own = min(self.available(user), amount)
        headroom = max(0, self.limits.get(user, 0) - self.owed(user))
        if amount - own > headroom:
            raise Refused("INSUFFICIENT_FUNDS")
        self.debts[user] = self.owed(user) + amount - own
        taken = {}
        for lot in self.lots(user):
            if part := min(lot.free, own):
                lot.remaining -= part
                own -= part
                taken[lot] = part
        return taken

    def _credit(self, user: str, parts: list[tuple[int, int | None]]) -> list[Lot]:
        made = []
        for amount, tier in parts:
            repaid = min(self.owed(user), amount)
            self.debts[user] = self.owed(user) - repaid
            if amount > repaid:
                made.append(Lot(user, len(self.all_lots), tier, amount - repaid))
                self.all_lots.append(made[-1])
        return made

    def _take_back(self, booked: Booked, user: str, amount: int) -> None:
        for lot in booked.made:
            part = min(lot.free, amount)
            lot.remaining -= part
            amount -= part
        for lot in booked.made:
            part = min(lot.lapsed, amount)
            lot.lapsed -= part
            amount -= part
        self.debts[user] = self.owed(user) + amount

    def _give_back(self, booked: Booked, amount: int) -> None:
        repaid = min(self.owed(booked.user), amount)
        self.debts[booked.user] = self.owed(booked.user) - repaid
        amount -= repaid
        for lot in sorted(booked.taken, key=self._order, reverse=True):
            part = min(booked.taken[lot] - booked.returned.get(lot, 0), amount)
            booked.returned[lot] = booked.returned.get(lot, 0) + part
            lot.remaining += part
            amount -= part
        if amount:
            self.all_lots.append(Lot(booked.user, len(self.all_lots), None, amount))

    def _lapse(self) -> None:
        for lot in self.all_lots:
            if lot.tier in self.past:
                lot.lapsed += lot.free
                lot.remaining = lot.held

    def _order(self, lot: Lot) -> tuple[bool, float, int]:
        tier = float("inf") if lot.tier is None else lot.tier
        return (lot.tier not in self.past, tier, lot.number)
