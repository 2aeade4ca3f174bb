"""A JSON Schema (2020-12) applied to documents; run it as a process: `python -m nft_svc.schemas`.

A schema is a program by its author. Its patterns may search for ever, its references may multiply,
or lead back to themselves, and nothing in between can be interrupted. So whoever applies one does
so in a process of its own, which ends once its processor time is used up.

References outside the schema are refused, never fetched.
"""

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

SECONDS = 1.0
"""Processor time for one schema and its documents."""
OUT_OF_TIME = signal.SIGPROF
"""What ends a process that needs more."""
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at a JSON path: of the document of that number, or else of the schema."""

    path: str
    wrong: str
    document: int | None = None


def find_fault(schema: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> Fault | None:
    """The first fault of a schema, or of a document under it."""
    try:
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema, registry=Registry())
        for number, document in enumerate(documents):
            broken = best_match(validator.iter_errors(document))
            if broken is not None:
                return _fault(broken.json_path, broken.message, number)
    except SchemaError as error:
        return _fault(error.json_path, error.message)
    except Unresolvable as error:
        return _fault("$", f"the reference {error.ref!r} leads nowhere inside it")
    except Exception as error:  # whatever a reference to itself, or to no schema, comes to
        return _fault("$", f"it cannot be applied ({type(error).__name__}: {error})")
    return None


def _fault(path: str, wrong: str, document: int | None = None) -> Fault:
    """A fault short enough for an error: messages repeat the document that they are about."""
    return Fault(path[:_LONGEST], wrong[:_LONGEST], document)


def main() -> None:
    """Reads `[schema, documents]` from stdin, and writes the fault, or null, to stdout."""
    schema, documents = json.load(sys.stdin)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    fault = find_fault(schema, documents)
    json.dump(fault and asdict(fault), sys.stdout)


if __name__ == "__main__":
    main()
