"""Scored clips for tests: frames with a truth, without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sagelink.lab.video.scored_clips import ScoredClip, ScoredFrame


def clip_of(truth: Sequence[int], kind: str = "yard.mp4", fps: float = 5.0, segment_s: float = 1.0) -> ScoredClip:
    """A clip with these true classes; its frames have no views."""
    none = cast(Any, None)
    frames = [ScoredFrame(i / fps, c, none, none, None) for i, c in enumerate(truth)]
    return ScoredClip(kind, kind, kind, len(truth) / fps, frames, segment_s)
