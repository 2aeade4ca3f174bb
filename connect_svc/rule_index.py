"""Finds the rules that an event could concern without trying all of its type. Pure."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

from go2asia.connect.v1 import events_pb2

from connect_svc.predicates import MISSING, Equality, Key, Path, read


class Indexed(Protocol):
    """What can be found by what its condition demands."""

    @property
    def equalities(self) -> Sequence[Equality]:
        """All of them hold whenever the condition does."""


R = TypeVar("R", bound=Indexed)
Ranked = tuple[int, R]


@dataclass(slots=True)
class _Table(Generic[R]):
    """Rules by the value that they demand, and those to try when there is none."""

    by_key: dict[Key, list[Ranked[R]]] = field(default_factory=lambda: defaultdict(list))
    unguarded: list[Ranked[R]] = field(default_factory=list)


class RuleIndex(Generic[R]):
    """The rules of one event type in the order of trying."""

    def __init__(self, rules: Sequence[R]) -> None:
        self.rules = rules
        self._always: list[Ranked[R]] = []
        self._tables: dict[Path, _Table[R]] = defaultdict(_Table)
        values = {(each.path, each.key) for rule in rules for each in rule.equalities}
        selectivity = Counter(path for path, _ in values)
        for ranked in enumerate(rules):
            # Ties are broken by the path, so that equal catalogues have equal indexes.
            found = ranked[1].equalities
            if found:
                self._file(ranked, max(found, key=lambda e: (selectivity[e.path], e.path)))
            else:
                self._always.append(ranked)

    def candidates(self, event: events_pb2.Event) -> Sequence[R]:
        """The rules whose condition may be anything but plainly false of the event, in order."""
        found = self._always
        for path, table in self._tables.items():
            key = read(event, path)
            ranked = table.unguarded if key is MISSING else table.by_key.get(key)
            if ranked:
                found = found + ranked
        if found is not self._always:
            found = sorted(found, key=itemgetter(0))
        return [rule for _, rule in found]

    def _file(self, ranked: Ranked[R], chosen: Equality) -> None:
        table = self._tables[chosen.path]
        table.by_key[chosen.key].append(ranked)
        if not chosen.guarded:
            table.unguarded.append(ranked)
