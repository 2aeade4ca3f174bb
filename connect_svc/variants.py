"""A/B variants of a rule: which one an actor is assigned. Pure."""

import hashlib
from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

from go2asia.connect.v1 import rules_pb2

from connect_svc.errors import InvalidRule

_NAMESPACE = b"go2asia.connect.v1.Variant"

Weights = tuple[tuple[str, int], ...]
"""The names of a rule's variants with their weights, as the author listed them."""


class Assignee(NamedTuple):
    """Who is assigned a variant, and of which rule."""

    rule_id: str
    user_id: str


def assign(assignee: Assignee, weights: Weights) -> str:
    """The variant of a user who has none yet: at random by weight, and the same on every replica.

    The draw is uniform over SHA-256, but for a bias below one in 2^200.
    """
    text = b"\0".join((_NAMESPACE, *(part.encode() for part in assignee)))
    bounds = list(accumulate(weight for _, weight in weights))
    drawn = int.from_bytes(hashlib.sha256(text).digest()) % bounds[-1]
    return next(name for (name, _), bound in zip(weights, bounds, strict=True) if drawn < bound)


def assign_all(
    wanted: Mapping[Assignee, Weights], stored: Mapping[Assignee, str]
) -> dict[Assignee, str]:
    """Everyone's variant: the stored one, unless there is none or the rule lost it."""
    return {
        assignee: kept
        if (kept := stored.get(assignee)) in dict(weights) and kept is not None
        else assign(assignee, weights)
        for assignee, weights in wanted.items()
    }


def compile_variants(rule: rules_pb2.Rule) -> Weights:
    """A rule's variants; raises `InvalidRule`."""
    names = {variant.name for variant in rule.variants}
    if len(rule.variants) == 1 or len(names) < len(rule.variants):
        raise InvalidRule(
            field="rule.variants",
            wrong="Variants are tried against each other; give at least two, each its own name.",
        )
    for number, action in enumerate(rule.actions):
        if action.variant and action.variant not in names:
            raise InvalidRule(
                field=f"rule.actions[{number}].variant",
                wrong=f"The rule has no variant {action.variant}; add it, or name one that it has.",
            )
    return tuple((variant.name, variant.weight) for variant in rule.variants)


def check_keys(rule: rules_pb2.Rule) -> None:
    """Raises `InvalidRule` if a user could get two actions of the same key."""
    taken: dict[str, set[str]] = {}
    for number, action in enumerate(rule.actions):
        others = taken.setdefault(action.key, set())
        if others and (not action.variant or not others.isdisjoint(("", action.variant))):
            raise InvalidRule(
                field=f"rule.actions[{number}].key",
                wrong=f"Two actions have the key {action.key}; give each its own.",
            )
        others.add(action.variant)
