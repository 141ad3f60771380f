"""Writes results.jsonl: one JSON object per captured frame. docs/outputs.md lists the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from sagelink.pipeline.answers import Answer, HeadAnswer
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.rotating_lines import RotatingLines
from sagelink.pipeline.types import FrameEvent, Verdict

_RENAMED = {
    "held": "server_seq",
    "part": "crop",
    "revises": "revised_from",
}  # old keys of version 0.1 and their new names


def record(verdict: Verdict, labels: tuple[str, ...]) -> dict[str, object]:
    """A verdict as plain JSON values. Probabilities and times are rounded; bits and indices are exact.

    `labels`: names of the model's own classes."""
    frame, answer = verdict.frame, verdict.answer
    point = verdict.point
    labels = verdict.labels(labels)
    return {
        "seq": frame.seq,
        "camera": frame.camera,
        "name": frame.name,
        "event": _event(frame.event),
        "stream_s": round(frame.stream_s, 6),
        "capture_s": round(frame.capture_ns / 1e9, 6),
        "wall_s": round(frame.wall_ns / 1e9, 6),
        "pts_s": None if frame.pts_s is None else round(frame.pts_s, 6),
        "sent_s": None if verdict.sent_s is None else round(verdict.sent_s, 6),
        "label": verdict.label(labels),
        "class_id": verdict.class_id,
        "prob": round(answer.prob, 6) if answer else None,
        "classes": _rounded(verdict.class_probs()),
        "origin": verdict.origin,
        "drop": verdict.drop,
        "scored": verdict.was_scored,
        "scene": verdict.provisional.estimate.scene_start_seq if verdict.provisional else None,
        "edge_weight": round(verdict.provisional.estimate.edge_weight, 3) if verdict.provisional else None,
        "server_seq": verdict.server_seq,
        "revised_from": _answer(verdict.revised_from, labels),
        "crop": [round(share, 6) for share in verdict.crop],
        "units": len(verdict.units),
        "lost_units": verdict.lost_units,
        "codec": point.codec if point else None,
        "side": point.side if point else None,
        "quality": point.quality if point else None,
        "wire_bits": verdict.wire_bits,
        "allowance_bits": verdict.allowance_bits,
        "window_bits": verdict.window_bits,
        "budget_bits": verdict.budget_bits,
        "edge": _answer(verdict.edge, labels),
        "server": _answer(verdict.server, labels),
        "heads": {answer.head: _further(answer) for answer in verdict.further},
        "truth": frame.truth,
        "latency_ms": {stage: None if ms is None else round(ms, 3) for stage, ms in verdict.latency_ms.items()},
    }


def _event(event: FrameEvent | None) -> dict[str, object] | None:
    return None if event is None else asdict(event) | {"box": None if event.box is None else list(event.box)}


def check_keys(row: Mapping[str, object], where: str) -> None:
    """Raises UsageError for a record that version 0.1 wrote; `where` names the file and the line."""
    for old, new in _RENAMED.items():
        if old in row and new not in row:
            raise UsageError(f"{where}: written by version 0.1: the key {old!r} is named {new!r} since version 0.2")


def timeless(row: dict[str, object]) -> dict[str, object]:
    """A record without the values that differ from one run to the next: wall time and latency."""
    return {key: value for key, value in row.items() if key not in ("capture_s", "wall_s", "latency_ms")}


def _answer(answer: Answer | None, labels: tuple[str, ...]) -> dict[str, object] | None:
    if answer is None:
        return None
    return {"class_id": answer.class_id, "label": labels[answer.class_id], "prob": round(answer.prob, 6)}


def _further(answer: HeadAnswer) -> dict[str, object]:
    """The answer by a further head."""
    labels = answer.taught.labels
    return {
        "class_id": answer.class_id,
        "label": answer.label,
        "prob": round(answer.answer.prob, 6),
        "classes": _rounded(answer.class_probs()),
        "origin": answer.origin,
        "edge": _answer(answer.edge, labels),
        "server": _answer(answer.server, labels),
    }


def _rounded(probs: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if probs is None else {name: round(prob, 6) for name, prob in probs.items()}


class JsonLines:
    """A sink. A run that is killed, or whose disk is full, leaves complete lines."""

    def __init__(self, lines: RotatingLines, labels: tuple[str, ...]) -> None:
        self._lines = lines
        self._labels = labels

    def write(self, verdict: Verdict) -> None:
        self._lines.write(to_json(record(verdict, self._labels)))

    def close(self) -> None:
        self._lines.close()
