"""Scores clips with the edge model and caches the result on disk, so that all policies, rates and later runs share it.

In: a `Clip`. Out: a `ScoredClip` with the edge's answer and unit order per frame, for the whole view and for the zoom
schedule of a run.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.harness import EDGE_BATCH, Harness, batched
from sagelink.lab.video.clips import KINDS, Clip
from sagelink.models.preprocess import Resize, make_picture
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.files.private_files import make_private_folder, replacing
from sagelink.pipeline.types import WHOLE, Box, EdgeView, Frame, Pixels, Scored, Units
from sagelink.stages.score import Score
from sagelink.stages.selectors import sage, selector_by_name
from sagelink.stages.sources.contract import SourceFrame
from sagelink.stages.zoom import ZoomSchedule, thumbnail_of

_SEGMENT_S = 2.0  # of a real video; a drawn clip is one part
_MAX_CACHE_BYTES = 500_000_000  # of scored clips in a cache; a clip of a minute has 1 MB
_SCORED = re.compile(r"-[0-9a-f]{16}-(whole|zoom)\.npz$")
_Columns = dict[str, np.ndarray]  # by name; one row per frame


@dataclass(frozen=True, slots=True, eq=False)
class ScoredView:
    """The edge's result for one view of a frame."""

    draw: Callable[[], Pixels]  # draws the picture when it is needed: pictures of all frames would fill the memory
    look: EdgeView
    answer: Answer
    unknown: bool  # none of the taught classes
    order: Units  # all units, in the order of the configured selector


NOT_SCORED = -1  # in place of a true class id: a frame between labelled intervals
UNTAUGHT = -2  # a label that is none of the classes: no answer is right


@dataclass(frozen=True, slots=True, eq=False)
class ScoredFrame:
    stream_s: float
    truth: int  # class id, NOT_SCORED or UNTAUGHT
    whole: ScoredView
    paper_order: Units  # all units of the whole view, in the order of the paper's SAGE
    scheduled: ScoredView | None  # the whole view or a zoom crop, by `sagelink.stages.zoom.ZoomSchedule`


@dataclass(frozen=True, slots=True)
class ScoredClip:
    name: str
    kind: str
    digest: str  # of the pixels, the models and the selection
    length_s: float
    frames: list[ScoredFrame]
    segment_s: float = math.inf  # parts of the clip that count as independent in confidence intervals


class ClipScorer:
    def __init__(self, harness: Harness, config: Config, cache: Path, zoom: bool) -> None:
        """`cache`: folder of the cached features, made when needed. `zoom`: also score the views of the schedule."""
        grid, select = harness.pair.server.grid, config.select
        self._harness = harness
        self._config = config
        self._cache = cache
        self._zoom = zoom
        self._resize: Resize = config.capture.resize
        self._selector = selector_by_name(select.selector)
        self._score = Score(harness.pair.edge, grid, select.importance, self._resize)
        self._paper_score = Score(harness.pair.edge, grid, "last", self._resize)

    def score(self, clip: Clip) -> ScoredClip:
        """Scores a clip, or loads it from the cache."""
        digest = self._digest(clip)
        path = self._cache / f"{clip.name}-{digest}-whole.npz"
        whole = cached_columns(path, len(clip.frames), lambda: self._score_whole(clip))
        scheduled = None
        if self._zoom:
            path = self._cache / f"{clip.name}-{digest}-zoom.npz"
            scheduled = cached_columns(path, len(clip.frames), lambda: self._score_scheduled(clip))
        frames = []
        for i, frame in enumerate(clip.frames):
            thumbnail = thumbnail_of(frame.pixels)
            frames.append(
                ScoredFrame(
                    stream_s=frame.stream_s - clip.frames[0].stream_s,
                    truth=int(whole["truth"][i]),
                    whole=self._view(frame.pixels, whole, i, WHOLE, thumbnail),
                    paper_order=whole["paper_order"][i].astype(np.intp),
                    scheduled=None
                    if scheduled is None
                    else self._view(frame.pixels, scheduled, i, _crop(scheduled, i), thumbnail),
                )
            )
        end_s = frames[-1].stream_s
        step_s = end_s / (len(frames) - 1) if len(frames) > 1 else 0.0
        segment_s = math.inf if clip.kind in KINDS else _SEGMENT_S
        return ScoredClip(clip.name, clip.kind, digest, max(end_s + step_s, 1e-3), frames, segment_s)

    def _view(self, pixels: Pixels, columns: _Columns, i: int, crop: Box, thumbnail: NDArray[np.float32]) -> ScoredView:
        return ScoredView(
            draw=lambda: self._draw(pixels, crop),
            look=EdgeView(crop, columns["class_token"][i], thumbnail),
            answer=Answer.from_log_probs(columns["log_probs"][i]),
            order=columns["order"][i].astype(np.intp),
            unknown=bool(columns["unknown"][i]),
        )

    def _draw(self, pixels: Pixels, crop: Box = WHOLE) -> Pixels:
        grid = self._harness.pair.server.grid
        return make_picture(pixels, grid.image_size, self._resize, grid.interpolation, grid.crop_pct, crop)

    def _score_scheduled(self, clip: Clip) -> _Columns:
        """Scores one frame after the other, each at the crop that the zoom schedule chooses from the earlier ones."""
        pair = self._harness.pair
        score = Score(
            pair.edge, pair.server.grid, self._config.select.importance, self._resize, {"lab": ZoomSchedule()}
        )
        rows: list[dict[str, object]] = []
        for i, frame in enumerate(clip.frames):
            (scored,) = score([_frame(i, frame)])
            rows.append(self._row(scored) | {"crop": scored.edge_view.crop})
        return _stacked(rows)

    def _score_whole(self, clip: Clip) -> _Columns:
        """Scores the whole view of all frames, with the configured importance and with the paper's."""
        units = self._harness.canvas.units
        rows: list[dict[str, object]] = []
        for batch in batched(enumerate(clip.frames), EDGE_BATCH):
            frames = [_frame(i, frame) for i, frame in batch]
            for scored, paper in zip(self._score(frames), self._paper_score(frames), strict=True):
                # SAGE picks from a pool of twice the wanted units, so it is asked for half of them; the others follow.
                picked = sage(paper.importance, paper.embeddings, units // 2, seed=0)
                paper_order = np.concatenate([picked, np.setdiff1d(np.arange(units), picked)])
                rows.append(self._row(scored) | {"paper_order": paper_order.astype(np.int16)})
        truth = [NOT_SCORED if frame.truth is None else frame.truth for frame in clip.frames]
        if not clip.labelled:
            truth = self._full_frame_classes(clip)
        return _stacked(rows) | {"truth": np.array(truth)}

    def _row(self, scored: Scored) -> dict[str, object]:
        seed = self._config.select.seed + scored.frame.seq
        order = self._selector(scored.importance, scored.embeddings, self._harness.canvas.units, seed=seed)
        return {
            "log_probs": scored.answer.log_probs,
            "class_token": scored.edge_view.class_token,
            "order": order.astype(np.int16),
            "unknown": scored.unknown,
        }

    def _full_frame_classes(self, clip: Clip) -> list[int]:
        """Class ids of the server's answers to the whole frames: the reference of clips without labels."""
        messages = (self._harness.full_message(0, self._draw(frame.pixels)) for frame in clip.frames)
        return [answer.class_id for answer in self._harness.answers(messages)]

    def _digest(self, clip: Clip) -> str:
        """Digest of everything that the cached features depend on."""
        config, pair = self._config, self._harness.pair
        digest = hashlib.sha256(repr((config.select, config.edge, config.server, self._resize)).encode())
        digest.update(f"{pair.edge.name} {pair.server.name} {clip.labelled}".encode())
        if pair.edge.head is not None:
            digest.update(pair.edge.head.taught.fingerprint)
        for frame in clip.frames:
            digest.update(frame.pixels.tobytes())
            digest.update(f"{frame.stream_s} {frame.truth}".encode())
        return digest.hexdigest()[:16]


def cached_columns(path: Path, frames: int, compute: Callable[[], _Columns]) -> _Columns:
    """Loads the columns from a cache file; if there is none or it is damaged, computes and stores them. Raises
    SagelinkError when they cannot be stored."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            columns = {column: file[column] for column in file.files}
        if all(len(column) == frames for column in columns.values()):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # used now, not changed
            return columns
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile):
        pass
    columns = compute()
    try:
        make_private_folder(path.parent)
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, **columns)
        bound_cache(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    return columns


def bound_cache(folder: Path, max_bytes: int = _MAX_CACHE_BYTES) -> None:
    """Deletes the scored clips that were not used for longest, until the others have at most `max_bytes` together.
    Files with other names stay."""
    files = [(path.stat(), path) for path in folder.glob("*.npz") if _SCORED.search(path.name)]
    kept = 0
    for stat, path in sorted(files, key=lambda each: each[0].st_atime_ns, reverse=True):
        kept += stat.st_size
        if kept > max_bytes:
            path.unlink(missing_ok=True)


def _stacked(rows: list[dict[str, object]]) -> _Columns:
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


def _crop(columns: _Columns, i: int) -> Box:
    left, top, right, bottom = columns["crop"][i].tolist()
    return left, top, right, bottom


def _frame(seq: int, frame: SourceFrame) -> Frame:
    return Frame(seq, "lab", 0, frame.stream_s, frame.pixels, 0.0)
