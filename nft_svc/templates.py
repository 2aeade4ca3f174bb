"""Templates of what items say: words in braces that stand for facts of the item. Pure.

Nothing is evaluated: a placeholder is replaced by its value, once, and what a value holds is not
looked at again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nft_svc.errors import UnknownPlaceholder

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Subject:
    """The item that a template is filled for; `mint_id` is the mint that brought it on chain."""

    mint_id: str
    nft_id: str
    nft_type: str
    level: int

    @property
    def values(self) -> Mapping[str, str]:
        """What each placeholder stands for."""
        return {
            "mint_id": self.mint_id,
            "nft_id": self.nft_id,
            "nft_type": self.nft_type,
            "level": str(self.level),
        }


def fill(template: str, subject: Subject, field: str, path: str = "") -> str:
    """The template with its placeholders replaced.

    Raises `UnknownPlaceholder` for a word in braces that stands for nothing; the error names the
    `field` of the type, and the `path` within it if the field is a document.
    """
    values = subject.values

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            known = ", ".join(f"{{{each}}}" for each in values)
            where = {"path": path} if path else {}
            raise UnknownPlaceholder(
                f"{found[0]} stands for nothing; use {known}, or leave the braces out.",
                field=field,
                placeholder=name,
                **where,
            )
        return values[name]

    return _PLACEHOLDER.sub(value, template)
