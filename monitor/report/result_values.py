"""Checks one line of `results.jsonl` and one `summary.json`: keys that are there, and kinds of values."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any

from sagelink.pipeline.errors import UsageError
from sagelink.stages.sinks.jsonl import check_keys

_Kinds = Mapping[str, tuple[type, ...]]

_NUMBER, _NUMBER_OR_NULL = (int, float), (int, float, NoneType)
_TEXT_OR_NULL, _CLASS, _OBJECT_OR_NULL = (str, NoneType), (int, NoneType), (dict, NoneType)

_LINE: _Kinds = {
    **{"seq": (int,), "camera": (str,), "stream_s": _NUMBER, "sent_s": _NUMBER_OR_NULL, "label": _TEXT_OR_NULL},
    **{"class_id": _CLASS, "prob": _NUMBER_OR_NULL, "origin": (str,), "drop": _TEXT_OR_NULL, "units": (int,)},
    **{"wire_bits": (int,), "window_bits": _NUMBER_OR_NULL, "budget_bits": _NUMBER_OR_NULL, "truth": _CLASS},
    **{"edge": _OBJECT_OR_NULL, "server": _OBJECT_OR_NULL, "latency_ms": (dict,)},
}
_LINE_IF_PRESENT: _Kinds = {"scored": (bool,), "lost_units": (int,), "revised_from": _OBJECT_OR_NULL}
_SUMMARY: _Kinds = {
    **{"window_s": _NUMBER, "budget_bits": _NUMBER_OR_NULL, "peak_window_bits": _NUMBER, "source": (str,)},
    **{"models": (dict,), "interrupted": (bool,)},
}
_WORDS = {int: "a number", float: "a number", str: "text", bool: "true or false", dict: "an object", NoneType: "null"}


def check_line(line: Any, where: str) -> dict[str, Any]:
    """One line of results.jsonl, as parsed. Raises UsageError with `where`, the key and the value."""
    if isinstance(line, dict):
        check_keys(line, where)
    if not isinstance(line, dict) or not line.keys() >= _LINE.keys():
        raise UsageError(f"{where}: not a line of results.jsonl; see docs/outputs.md")
    _check(line, _LINE, where)
    _check(line, {key: kinds for key, kinds in _LINE_IF_PRESENT.items() if key in line}, where)
    times = line["latency_ms"]
    if "total" not in times:
        raise UsageError(f"{where}: not a line of results.jsonl; see docs/outputs.md")
    _check(times, dict.fromkeys(times, _NUMBER_OR_NULL), f"{where}: latency_ms")
    for side in ("edge", "server", "revised_from"):
        answer = line.get(side) or {}
        _check(answer, {key: kinds for key, kinds in (("class_id", _CLASS),) if key in answer}, f"{where}: {side}")
    return line


def check_summary(summary: Any, where: str) -> dict[str, Any]:
    """The content of summary.json, as parsed. Raises UsageError with `where`, the key and the value."""
    if not isinstance(summary, dict) or not summary.keys() >= _SUMMARY.keys():
        raise UsageError(f"{where!r} is not the summary of a run; see docs/outputs.md")
    _check(summary, _SUMMARY, where)
    if not summary["models"].keys() >= {"edge", "server"}:
        raise UsageError(f"{where}: models: {summary['models']!r:.60}; accepted: an object with edge and server")
    return summary


def _check(values: Mapping[str, object], kinds: _Kinds, where: str) -> None:
    for key, accepted in kinds.items():
        value = values[key]
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            words = " or ".join(dict.fromkeys(_WORDS[kind] for kind in accepted))
            raise UsageError(f"{where}: {key}: {value!r:.60}; accepted: {words}")
