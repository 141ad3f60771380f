"""Reads YAML and JSON from anywhere: limits on size, depth and number of values, so that no document costs more than it
looks like.

Plain data comes out: mappings, lists, strings, numbers. A YAML alias counts as often as it is used, because whatever
reads the data visits it as often. Tags that build objects, duplicate keys, and numbers that no setting can have are
errors.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NoReturn

import yaml

MAX_BYTES = 500_000  # of a YAML file
MAX_DEPTH = 32  # collections inside one another
MAX_VALUES = 30_000  # scalars and collections
_MAX_DIGITS = 40  # characters of a number in YAML
_MAX_INT = 2**64


class DocumentError(ValueError):
    """A text cannot be read; the message says why, and quotes none of it: it may hold a password."""


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file. Raises OSError, or DocumentError when it is too large or not UTF-8."""
    with path.open("rb") as file:
        return decode(read_at_most(file, max_bytes))


def read_yaml(path: Path, numbers_as_text: bool = False) -> Any:
    """The content of a YAML file. Raises OSError or DocumentError."""
    return parse_yaml(read_text(path), numbers_as_text)


def read_at_most(file: BinaryIO, max_bytes: int) -> bytes:
    """All bytes of a file. Raises DocumentError if there are more than `max_bytes`."""
    data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise DocumentError(f"too large; accepted: up to {max_bytes} bytes")
    return data


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes. Raises DocumentError."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"not UTF-8 text: line {line}, byte {data[error.start]:#04x}") from None


def parse_yaml(text: str, numbers_as_text: bool = False) -> Any:
    """The content of a YAML text. Raises DocumentError.

    `numbers_as_text`: numbers and dates stay text, as a person wrote them, for a schema that knows which values are
    numbers. So `uplink: 64` is known to lack a unit, `source: 0` is webcam 0, and the user name `007` keeps its zeros.
    """
    if len(text) > MAX_BYTES:
        raise DocumentError(f"{len(text)} characters; accepted: up to {MAX_BYTES}")
    try:
        content = yaml.load(text, _TextLoader if numbers_as_text else _Loader)  # noqa: S506 (SafeLoaders)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise DocumentError(f"{where}{error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(f"line {line}: the character {error.character:#04x} is not allowed") from None
    except RecursionError:
        raise DocumentError(f"values are nested too deeply; accepted: up to {MAX_DEPTH} levels") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML converts scalars with a tag (`!!bool x`) without checks.
        raise DocumentError(f"a value does not fit its type ({type(error).__name__})") from None
    _check_values(content, MAX_DEPTH, MAX_VALUES, finite=False)
    return content


def parse_json(text: str | bytes, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES) -> Any:
    """The content of a JSON text. Raises DocumentError."""
    try:
        content = json.loads(text, object_pairs_hook=_mapping, parse_constant=_no_constant)
    except DocumentError:
        raise
    except json.JSONDecodeError as error:
        raise DocumentError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise DocumentError(f"values are nested too deeply; accepted: up to {max_depth} levels") from None
    except UnicodeDecodeError:
        raise DocumentError("not UTF-8 text") from None
    except ValueError:  # Python converts no longer number
        raise DocumentError(f"a number has too many digits; accepted: up to {_MAX_DIGITS}") from None
    _check_values(content, max_depth, max_values, finite=True)
    return content


def _check_values(content: Any, max_depth: int, max_values: int, finite: bool) -> None:
    """Raises DocumentError for plain data that is nested too deeply, has too many values, an integer beyond 64 bits, or
    half of a character; with `finite`, also for an infinite number."""
    level: list[Any] = [content]
    values = 0
    for _ in range(max_depth + 1):
        values += len(level)
        if values > max_values:
            raise DocumentError(f"too many values; accepted: up to {max_values}")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.keys()
                inner += value.values()
            elif isinstance(value, list | tuple | set):
                inner += value
            elif isinstance(value, str):
                if not value.isascii():
                    _check_characters(value)
            elif isinstance(value, int) and abs(value) > _MAX_INT:
                raise DocumentError("an integer is too large; accepted: up to 64 bits")
            elif finite and isinstance(value, float) and not math.isfinite(value):
                raise DocumentError("a number is too large")
            if len(inner) + values > 2 * max_values:
                raise DocumentError(f"too many values; accepted: up to {max_values}")
        if not inner:
            return
        level = inner
    raise DocumentError(f"values are nested too deeply; accepted: up to {max_depth} levels")


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DocumentError("a text holds half of a surrogate pair, which is no character") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise DocumentError("a key is given twice in one object")
    return mapping


def _no_constant(name: str) -> None:
    raise DocumentError(f"{name} is not JSON")


class _Loader(yaml.SafeLoader):
    """Counts what it composes. An alias counts as much as the value that it repeats."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._values = self._depth = 0
        self._sizes: dict[str, int] = {}  # values of each complete anchored node, by anchor

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor: str | None = getattr(event, "anchor", None)
        before = self._values
        self._values += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"values are nested too deeply; accepted: up to {MAX_DEPTH} levels", event)
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self._sizes:
                self._refuse(f"the alias {(anchor or '')[:32]!r} stands inside the value that it repeats", event)
            self._values += self._sizes.get(anchor or "", 0)
        elif anchor is not None:
            self._sizes.pop(anchor, None)
        if self._values > MAX_VALUES:
            self._refuse(f"too many values, with aliases written out; accepted: up to {MAX_VALUES}", event)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._sizes[anchor] = self._values - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # an anchor is a str, whatever the stubs say
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in keys:
                    self._refuse(f"the key {key.value[:64]!r} is given twice", key)
                keys.add((key.tag, key.value))
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if len(node.value) > _MAX_DIGITS:
            self._refuse(f"a number has too many digits; accepted: up to {_MAX_DIGITS}", node)
        if node.tag.endswith(":int"):
            return int(self.construct_yaml_int(node))
        return float(self.construct_yaml_float(node))

    def _refuse(self, problem: str, place: Any) -> NoReturn:
        """`place`: an event or a node, which knows its line."""
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


_LEFT_TO_THE_SCHEMA = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp")}


class _TextLoader(_Loader):
    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]  # the stubs declare it of instances
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _LEFT_TO_THE_SCHEMA]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
