"""Reads the files that people write into messages of the contracts.

A catalogue is YAML: one top-level key holding a list of messages in their JSON form (`rules:` of
`go2asia.connect.v1.Rule`, `badges:` of `go2asia.nft.v1.NftType`). Events are JSON Lines: one
`go2asia.connect.v1.Event` a line. A mistake never stops the reading: it is returned with its file,
line and field, and the rest goes on.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from go2asia.connect.v1.events_pb2 import Event
from google.protobuf import json_format
from google.protobuf.message import Message
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from mesh.errors import MeshError
from mesh.validation import InvalidFields, check

# Connect takes events of half this size; a batch of a hundred this large fits into a message.
_MAX_EVENT_BYTES = 32 * 1024

M = TypeVar("M", bound=Message)
Steps = tuple[str | int, ...]

# json_format names places as "at Rule.actions[0]" or as nested "Failed to parse actions field".
_PLACE = re.compile(r" at \"?\w+\.([\w.\[\]]+?)\"?\.?(?:\n|$)")
_NESTED = re.compile(r"Failed to parse (\w+) field")
_UNKNOWN = re.compile(r'has no field named "(\w+)"')
_NOT_JSON = re.compile(r"Failed to load JSON: (.+?)(?:: line 1 (column \d+) \(char \d+\))?\.")


@dataclass(frozen=True)
class Mistake:
    """Something in a file that cannot be used; `line` counts from 1."""

    file: Path
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        named = self.message.startswith(self.field) or f" {self.field}: " in self.message
        field = "" if named else f"{self.field}: "
        return f"{self.file}:{self.line}: {field}{self.message}"


@dataclass(frozen=True)
class Document(Generic[M]):
    """A message and the line of the file at which it starts; `lines` are those of its fields."""

    message: M
    file: Path
    line: int
    lines: Mapping[Steps, int] = field(default_factory=dict)

    def mistake(self, path: str, words: str) -> Mistake:
        """What a service found wrong with the field at `path`, such as `actions[0].key`."""
        line = _line_of({(): self.line, **self.lines}, _steps(path))
        return Mistake(self.file, line, path, words)

    def refusal(self, error: MeshError, within: str) -> Mistake:
        """Why a service refused the message, which the request held in its field `within`."""
        # The message's place in our request means nothing to whoever wrote the file.
        place = re.compile(rf"(?<![\w.]){re.escape(within)}(\.(?=\w)|$)")
        return self.mistake(place.sub("", error.field or ""), place.sub("", error.message))


def read_catalogue(
    path: Path, key: str, message_type: type[M]
) -> tuple[list[Document[M]], list[Mistake]]:
    """Return the messages listed under `key` of a YAML file, and what is wrong with the others."""
    try:
        text = path.read_text(encoding="utf-8")
        data, lines, doubled = _load(text)
    except UnicodeDecodeError:
        return [], [_not_text(path)]
    except yaml.YAMLError as error:
        return [], [_not_yaml(path, text, error)]
    if not isinstance(data, dict) or not isinstance(data.get(key), list):
        return [], [Mistake(path, 1, key, f"the file needs a top-level list `{key}:`")]
    mistakes = [
        Mistake(path, line, ".".join(map(str, steps)), "this key stands here twice")
        for steps, line in doubled
    ]
    unclear = {steps[1] for steps, _ in doubled if len(steps) > 1}
    documents = []
    for index, item in enumerate(data[key]):
        found, message = _parse(item, message_type)
        for place, wrong in found:
            line = _line_of(lines, (key, index, *_steps(place)))
            mistakes.append(Mistake(path, line, f"{key}[{index}].{place}", wrong))
        if not found and index not in unclear:
            own = {at[2:]: line for at, line in lines.items() if at[:2] == (key, index)}
            documents.append(Document(message, path, own[()], own))
    return documents, mistakes


def read_events(path: Path) -> tuple[list[Document[Event]], list[Mistake]]:
    """Return the events of a JSON Lines file, and what is wrong with the other lines.

    Field rules are left to Connect: an event that breaks one is sent, and refused there, unless it
    is too large for a batch.
    """
    documents, mistakes = [], []
    try:
        # A JSON text may hold the other ends of lines that splitlines knows, such as U+2028.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        return [], [_not_text(path)]
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        event = Event()
        if found := _parse_event(text, event):
            mistakes.append(Mistake(path, line, *found))
        else:
            documents.append(Document(event, path, line))
    return documents, mistakes


def _parse_event(text: str, event: Event) -> tuple[str, str] | None:
    """Fill an event from its line; return (field path, what is wrong) if that cannot be done."""
    if not text.lstrip().startswith("{"):
        return "", "no JSON object; write one event a line"
    try:
        json_format.Parse(text, event)
    except json_format.ParseError as error:
        return _explain(str(error))
    if (size := event.ByteSize()) > _MAX_EVENT_BYTES:
        return "context", f"the event has {size} bytes; send only the facts that rules need"
    return None


def _parse(item: Any, message_type: type[M]) -> tuple[list[tuple[str, str]], M]:
    message = message_type()
    try:
        json_format.ParseDict(item, message)
        check(message)
    except json_format.ParseError as error:
        return [_explain(str(error))], message
    except InvalidFields as error:
        return list(error.violations), message
    except (AttributeError, TypeError):
        return [("", f"expected a mapping with the fields of {message_type.__name__}")], message
    return [], message


def _explain(error: str) -> tuple[str, str]:
    """Split a message of json_format into (field path, what is wrong)."""
    if broken := _NOT_JSON.fullmatch(error):
        return "", f"not JSON: {', '.join(filter(None, broken.groups()))}"
    words = error.split("\n")[0].rsplit("Failed to parse ", 1)[-1]
    words = re.sub(r" at \"?\w+(\.[\w.\[\]]+)?\"?\.?$", "", words).rstrip(".")
    words = re.sub(r"^\w+ field: ", "", words)
    place = _PLACE.search(error)
    path = place.group(1) if place else ".".join(_NESTED.findall(error))
    if unknown := _UNKNOWN.search(error):
        path = f"{path}.{unknown.group(1)}".lstrip(".")
        words = f"unknown field `{unknown.group(1)}`"
    return path, words


def _steps(path: str) -> Steps:
    return tuple(int(word) if word.isdigit() else word for word in re.findall(r"\w+", path))


def _not_text(path: Path) -> Mistake:
    return Mistake(path, 1, "", "not a UTF-8 text file; save it as UTF-8")


def _not_yaml(path: Path, text: str, error: yaml.YAMLError) -> Mistake:
    line, wrong = 1, str(error)
    if isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position) + 1
        wrong = f"the character U+{error.character:04X} has no place in it; remove it"
    elif isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        wrong = ", ".join(part for part in (error.context, error.problem) if part)
    return Mistake(path, line, "", f"not YAML: {wrong}")


class _Loader(yaml.SafeLoader):
    """YAML as the contracts' JSON form needs it: dates are text."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As the parent does, but a value that has not the form of its kind is told by its line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError) as error:
            kind = node.tag.rpartition(":")[2]
            wrong = f"{node.value[:40]!r} cannot be read as {kind}; quote it if it is text"
            raise ConstructorError(None, None, wrong, node.start_mark) from error


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _load(text: str) -> tuple[Any, dict[Steps, int], list[tuple[Steps, int]]]:
    """The data of a YAML text, the lines of its parts, and the keys that stand twice."""
    loader = _Loader(text)
    try:
        data = loader.get_single_data()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return None, {}, []
        return data, dict(_lines_of(root, ())), list(_doubled_keys(root, ()))
    except (ValueError, RecursionError) as error:
        raise yaml.MarkedYAMLError(problem=str(error), problem_mark=loader.get_mark()) from error


def _line_of(lines: Mapping[Steps, int], steps: Steps) -> int:
    """Return the line of the longest part of the path that the file has."""
    while steps not in lines and steps:
        steps = steps[:-1]
    return lines.get(steps, 1)


def _lines_of(node: yaml.Node, steps: Steps) -> Iterator[tuple[Steps, int]]:
    yield steps, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            # The key's own line: a block scalar's value starts a line later.
            for inner, line in _lines_of(value, (*steps, name.value)):
                own = len(inner) == len(steps) + 1
                yield inner, name.start_mark.line + 1 if own else line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines_of(value, (*steps, index))


def _doubled_keys(node: yaml.Node, steps: Steps) -> Iterator[tuple[Steps, int]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            if name.value in seen:
                yield (*steps, name.value), name.start_mark.line + 1
            seen.add(name.value)
            yield from _doubled_keys(value, (*steps, name.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _doubled_keys(value, (*steps, index))
