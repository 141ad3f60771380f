"""Clips as the edge has scored them, once for all policies and rates; kept on disk, so that a further run need not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.clips import Clip
from sagelink.lab.harness import Harness, batched
from sagelink.models.preprocess import Resize, make_picture
from sagelink.pipeline.config import Config
from sagelink.pipeline.types import WHOLE, Answer, Box, EdgeView, Frame, OperatingPoint, Pixels, Units
from sagelink.stages.score import Score
from sagelink.stages.selectors import sage, selector_by_name
from sagelink.stages.sources.contract import SourceFrame
from sagelink.stages.zoom import ZoomSchedule, thumbnail_of

_SCORED = 8  # frames of a forward pass
_Columns = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredView:
    """What the edge made of a part of a frame."""

    draw: Callable[[], Pixels]  # made anew each time: a picture of every frame would fill the memory
    look: EdgeView
    answer: Answer
    order: Units  # all units as the configuration selects them


@dataclass(frozen=True, slots=True, eq=False)
class ScoredFrame:
    """One frame, scored."""

    stream_s: float
    truth: int
    whole: ScoredView
    paper: Units  # of the whole, in the form of the paper
    turn: ScoredView  # of the part whose turn it is, see `sagelink.stages.zoom`


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """One clip, scored."""

    name: str
    kind: str
    mark: str  # of its pictures, the models and the selection
    length_s: float
    shots: list[ScoredFrame]


class ClipScorer:
    """From clips to footage."""

    def __init__(self, harness: Harness, config: Config, folder: Path) -> None:
        """`folder`: of the cache."""
        grid, select = harness.pair.server.grid, config.select
        self._rig = harness
        self._config = config
        self._folder = folder
        self._resize: Resize = config.capture.resize
        self._score = Score(harness.pair.edge, grid, select.importance, self._resize)
        self._paper = Score(harness.pair.edge, grid, "last", self._resize)

    def show(self, clip: Clip, step: Callable[[int], None]) -> ScoredClip:
        """`step` is told how many more frames are done."""
        mark = self._mark(clip)
        columns = self._kept(f"{clip.name}-{mark}", len(clip.frames), lambda: self._compute(clip))
        turns = self._kept(f"{clip.name}-{mark}-turns", len(clip.frames), lambda: self._take_turns(clip))
        step(len(clip.frames))
        shots = []
        for i, frame in enumerate(clip.frames):
            thumb = thumbnail_of(frame.pixels)
            left, top, right, bottom = turns["part"][i].tolist()
            shots.append(
                ScoredFrame(
                    stream_s=frame.stream_s - clip.frames[0].stream_s,
                    truth=int(columns["truth"][i]),
                    whole=self._view(frame.pixels, columns, i, WHOLE, thumb),
                    paper=columns["paper"][i].astype(np.intp),
                    turn=self._view(frame.pixels, turns, i, (left, top, right, bottom), thumb),
                )
            )
        times = [shot.stream_s for shot in shots]
        step_s = times[-1] / (len(times) - 1) if len(times) > 1 else 0.0
        return ScoredClip(clip.name, clip.kind, mark, max(times[-1] + step_s, 1e-3), shots)

    def _view(self, pixels: Pixels, columns: _Columns, i: int, part: Box, thumb: NDArray[np.float32]) -> ScoredView:
        return ScoredView(
            draw=lambda: self._draw(pixels, part),
            look=EdgeView(part, columns["summary"][i], thumb),
            answer=Answer.from_log_probs(columns["log_probs"][i]),
            order=columns["order"][i].astype(np.intp),
        )

    def _draw(self, pixels: Pixels, part: Box = WHOLE) -> Pixels:
        grid = self._rig.pair.server.grid
        return make_picture(pixels, grid.image_size, self._resize, grid.interpolation, grid.crop_pct, part)

    def _take_turns(self, clip: Clip) -> _Columns:
        """As a run looks at the frames, one after the other."""
        select, units = self._config.select, self._rig.canvas.units
        selector = selector_by_name(select.selector)
        score = Score(
            self._rig.pair.edge, self._rig.pair.server.grid, select.importance, self._resize, {"lab": ZoomSchedule()}
        )
        rows: list[tuple[np.ndarray, ...]] = []
        for i, shot in enumerate(clip.frames):
            (scored,) = score([_frame(i, shot)])
            order = selector(scored.importance, scored.embeddings, units, seed=select.seed + i)
            rows.append(
                (
                    scored.answer.log_probs,
                    scored.edge_view.class_token,
                    order.astype(np.int16),
                    np.array(scored.edge_view.crop),
                )
            )
        return dict(zip(("log_probs", "summary", "order", "part"), map(np.stack, zip(*rows, strict=True)), strict=True))

    def _compute(self, clip: Clip) -> _Columns:
        select = self._config.select
        selector, units = selector_by_name(select.selector), self._rig.canvas.units
        rows: list[tuple[np.ndarray, ...]] = []
        for part in batched(enumerate(clip.frames), _SCORED):
            frames = [_frame(i, shot) for i, shot in part]
            for (i, _), ours, paper in zip(part, self._score(frames), self._paper(frames), strict=True):
                order = selector(ours.importance, ours.embeddings, units, seed=select.seed + i)
                # sage looks at twice the units that it may pick, so the paper's form is asked for as many as are sent
                papers = sage(paper.importance, paper.embeddings, units // 2, seed=0)
                rest = np.setdiff1d(np.arange(units), papers)
                rows.append((ours.answer.log_probs, ours.edge_view.class_token, order, np.concatenate([papers, rest])))
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
        canvas = self._rig.canvas
        point = OperatingPoint("raw-zstd", canvas.units, canvas.pixels, 0)
        everything = np.arange(canvas.units)
        pictures = (self._draw(shot.pixels) for shot in clip.frames)
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

    def _kept(self, name: str, frames: int, compute: Callable[[], _Columns]) -> _Columns:
        """What a file of the cache holds, or else what is computed and then kept there."""
        path = self._folder / f"{name}.npz"
        try:
            with np.load(path) as file:
                columns = {column: file[column] for column in file.files}
            if all(len(column) == frames for column in columns.values()):
                return columns
        except (OSError, ValueError, KeyError, BadZipFile):  # none, or one of a run that was killed
            pass
        columns = compute()
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **columns)
        unfinished.replace(path)
        return columns


def _frame(seq: int, shot: SourceFrame) -> Frame:
    return Frame(seq, "lab", 0, shot.stream_s, shot.pixels, 0.0)
