"""Clips as the edge has scored them, once for all policies and rates; kept on disk, so that a further run need not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lab.clips import Clip
from lab.rig import Rig, batched
from models.picture import Resize, make_picture
from pipeline.config import Config
from pipeline.types import Answer, Frame, OperatingPoint, Pixels, Units
from stages.score import Score
from stages.selectors import sage, selector_by_name

_SCORED = 8  # frames of a forward pass


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One frame, scored."""

    picture: Pixels
    stream_s: float
    truth: int
    answer: Answer  # the edge's
    summary: NDArray[np.float32]
    order: Units  # all units as the configuration selects them
    paper: Units  # the same in the form of the paper


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """One clip, scored."""

    name: str
    kind: str
    mark: str  # of its pictures, the models and the selection
    length_s: float
    shots: list[Shot]


class Projector:
    """From clips to footage."""

    def __init__(self, rig: Rig, config: Config, folder: Path) -> None:
        """`folder`: of the cache."""
        grid, select = rig.pair.server.grid, config.select
        self._rig = rig
        self._config = config
        self._folder = folder
        self._resize: Resize = config.capture.resize
        self._score = Score(rig.pair.edge, grid, select.importance, self._resize)
        self._paper = Score(rig.pair.edge, grid, "last", self._resize)

    def show(self, clip: Clip, step: Callable[[int], None]) -> ScoredClip:
        """`step` is told how many more frames are done."""
        mark = self._mark(clip)
        path = self._folder / f"{clip.name}-{mark}.npz"
        columns = self._load(path, len(clip.frames))
        if columns is None:
            columns = self._compute(clip, step)
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part")
            with unfinished.open("wb") as file:
                np.savez(file, allow_pickle=False, **columns)
            unfinished.replace(path)
        else:
            step(len(clip.frames))
        grid = self._rig.pair.server.grid
        shots = [
            Shot(
                picture=make_picture(frame.pixels, grid.image_size, self._resize, grid.interpolation, grid.crop_pct),
                stream_s=frame.stream_s - clip.frames[0].stream_s,
                truth=int(columns["truth"][i]),
                answer=_answer(columns["log_probs"][i]),
                summary=columns["summary"][i],
                order=columns["order"][i].astype(np.intp),
                paper=columns["paper"][i].astype(np.intp),
            )
            for i, frame in enumerate(clip.frames)
        ]
        times = [shot.stream_s for shot in shots]
        step_s = times[-1] / (len(times) - 1) if len(times) > 1 else 0.0
        return ScoredClip(clip.name, clip.kind, mark, max(times[-1] + step_s, 1e-3), shots)

    def _compute(self, clip: Clip, step: Callable[[int], None]) -> dict[str, np.ndarray]:
        select = self._config.select
        selector, units = selector_by_name(select.selector), self._rig.canvas.units
        rows: list[tuple[np.ndarray, ...]] = []
        for part in batched(enumerate(clip.frames), _SCORED):
            frames = [Frame(i, "lab", 0, shot.stream_s, shot.pixels, 0.0) for i, shot in part]
            for (i, _), ours, paper in zip(part, self._score(frames), self._paper(frames), strict=True):
                order = selector(ours.importance, ours.embeddings, units, seed=select.seed + i)
                # sage looks at twice the units that it may pick, so the paper's form is asked for as many as are sent
                papers = sage(paper.importance, paper.embeddings, units // 2, seed=0)
                rest = np.setdiff1d(np.arange(units), papers)
                rows.append((ours.answer.log_probs, ours.summary, order, np.concatenate([papers, rest])))
            step(len(part))
        log_probs, summary, order_rows, paper_rows = (np.stack(column) for column in zip(*rows, strict=True))
        truth = [shot.truth for shot in clip.frames]
        if truth[0] is None:
            truth = self._full(clip)
        return {
            "log_probs": log_probs,
            "summary": summary,
            "order": order_rows.astype(np.int16),
            "paper": paper_rows.astype(np.int16),
            "truth": np.array(truth),
        }

    def _full(self, clip: Clip) -> list[int | None]:
        """The server's answers to the whole frames, which stand in for the truth."""
        grid, canvas = self._rig.pair.server.grid, self._rig.canvas
        point = OperatingPoint("raw-zstd", canvas.units, canvas.pixels, 0)
        everything = np.arange(canvas.units)
        pictures = (
            make_picture(shot.pixels, grid.image_size, self._resize, grid.interpolation, grid.crop_pct)
            for shot in clip.frames
        )
        messages = (self._rig.encoder.message(0, picture, everything, point) for picture in pictures)
        return [answer.class_id for answer in self._rig.answers(messages, lambda done: None)]

    def _mark(self, clip: Clip) -> str:
        """What the cached features depend on."""
        config, pair = self._config, self._rig.pair
        mark = hashlib.sha256(repr((config.select, config.edge, config.server, self._resize)).encode())
        mark.update(f"{pair.edge.name} {pair.server.name}".encode())
        for shot in clip.frames:
            mark.update(shot.pixels.tobytes())
            mark.update(f"{shot.stream_s} {shot.truth}".encode())
        return mark.hexdigest()[:16]

    @staticmethod
    def _load(path: Path, frames: int) -> dict[str, np.ndarray] | None:
        try:
            with np.load(path) as file:
                columns = {name: file[name] for name in ("log_probs", "summary", "order", "paper", "truth")}
        except (OSError, ValueError, KeyError, BadZipFile):
            return None
        return columns if all(len(column) == frames for column in columns.values()) else None


def _answer(log_probs: NDArray[np.float32]) -> Answer:
    best = int(log_probs.argmax())
    return Answer(best, float(np.exp(log_probs[best])), log_probs)
