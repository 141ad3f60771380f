"""Score stage: runs the edge model once per frame. `Frame`s in, `Scored`s out (answer, importance, embeddings)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sagelink.models.heads.further import NamedHead
from sagelink.models.heads.linear_classifier import part_of
from sagelink.models.model_contract import EdgeModel, EdgeScores, Importance
from sagelink.models.preprocess import Resize, make_picture
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.answers import Answer, HeadAnswer
from sagelink.pipeline.types import WHOLE, Box, EdgeView, Frame, Pixels, Scored
from sagelink.stages.resample import resample
from sagelink.stages.zoom import ZoomSchedule, thumbnail_of

_SMALLEST = 1e-9  # threshold


class Score:
    """The edge model; its importance and embeddings are resampled to the server's grid. Blocking: runs in a thread."""

    def __init__(
        self,
        edge: EdgeModel,
        grid: UnitGrid,
        importance: Importance,
        resize: Resize,
        zoom_schedules: Mapping[str, ZoomSchedule] | None = None,
        model_for: Callable[[Frame], EdgeModel] | None = None,
        further: Callable[[Frame], Sequence[NamedHead]] = lambda frame: (),
    ) -> None:
        """`zoom_schedules`: by camera, where some frames are zoomed. `model_for`: `edge` with the classes of a frame,
        on the same backbone; None: `edge` itself. `further`: heads of a frame besides the one of the edge model."""
        self._edge = edge
        self._grid = grid
        self._importance: Importance = importance
        self._resize: Resize = resize
        self._zoom_schedules = zoom_schedules or {}
        self._further = further
        self._model_for = model_for or (lambda _: edge)

    def __call__(self, frames: Sequence[Frame]) -> list[Scored]:
        """Scores all frames with the same classes in one forward pass. `score_ms` is the time of the pass: each frame
        waits for it.

        Raises ValueError where the model computes NaN or infinity: the graph then scores the frames one by one, and
        drops the faulty ones before they cost anything.
        """
        scored: dict[int, Scored] = {}
        models = [self._model_for(frame) for frame in frames]
        for model in {id(model): model for model in models}.values():
            places = [place for place, other in enumerate(models) if other is model]
            scored.update(zip(places, self._score(model, [frames[place] for place in places]), strict=True))
        return [scored[place] for place in range(len(frames))]

    def _score(self, edge: EdgeModel, frames: Sequence[Frame]) -> list[Scored]:
        began = time.perf_counter()
        thumbnails = [thumbnail_of(frame.pixels) for frame in frames]
        crops = [self._next_crop(frame, thumbnail) for frame, thumbnail in zip(frames, thumbnails, strict=True)]
        pictures = self._pictures(frames, crops, self._grid)
        same_input = (edge.grid.image_size, edge.grid.interpolation) == (
            self._grid.image_size,
            self._grid.interpolation,
        )
        inputs = pictures if same_input else self._pictures(frames, crops, edge.grid)
        scores = edge.score(np.stack(inputs), self._importance)
        importance = [self._on_grid(values[:, None])[:, 0] for values in scores.importance]
        embeddings = [self._on_grid(values) for values in scores.embeddings]
        computed = (scores.logits, scores.class_token, *importance, *embeddings)
        if not all(np.isfinite(values).all() for values in computed):
            raise ValueError(f"edge model {edge.name!r} computed values that are not finite")
        novelty = _novelty(edge, scores, len(frames))
        taught = edge.head.taught if edge.head else None
        for frame, crop, values in zip(frames, crops, importance, strict=True):
            if schedule := self._zoom_schedules.get(frame.camera):
                schedule.update(crop, values)
        score_ms = (time.perf_counter() - began) * 1e3
        return [
            Scored(
                frame=frame,
                picture=pictures[i],
                answer=Answer.from_log_scores(scores.logits[i]),
                importance=importance[i],
                embeddings=embeddings[i],
                edge_view=EdgeView(crops[i], scores.class_token[i], thumbnails[i]),
                score_ms=score_ms,
                novelty=novelty[i],
                further=self._further_answers(frame, scores, i),
                taught=taught,
            )
            for i, frame in enumerate(frames)
        ]

    def _further_answers(self, frame: Frame, scores: EdgeScores, row: int) -> tuple[HeadAnswer, ...]:
        heads = self._further(frame)
        if not heads or scores.read is None:
            return ()
        features = scores.read[row : row + 1]
        return tuple(answer for head in heads for answer in head.answers(features))

    def _next_crop(self, frame: Frame, thumbnail: NDArray[np.float32]) -> Box:
        schedule = self._zoom_schedules.get(frame.camera)
        return schedule.next_crop(thumbnail) if schedule else WHOLE

    def _pictures(self, frames: Sequence[Frame], crops: Sequence[Box], grid: UnitGrid) -> list[Pixels]:
        return [self._draw(frame, crop, grid) for frame, crop in zip(frames, crops, strict=True)]

    def draw(self, frame: Frame, crop: Box) -> Pixels:
        """A part of a frame's view as the server's picture (S, S, 3)."""
        return self._draw(frame, crop, self._grid)

    def _draw(self, frame: Frame, crop: Box, grid: UnitGrid) -> Pixels:
        # The server's crop_pct for both models: they must get the same part of the frame.
        crop_pct, resize = self._grid.crop_pct, self._resize
        return make_picture(frame.pixels, grid.image_size, resize, grid.interpolation, crop_pct, crop)

    def _on_grid(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resamples (N, D) on the edge's grid to (N', D) on the server's."""
        side = self._edge.grid.side
        if side != self._grid.side:
            maps = values.reshape(side, side, -1)
            values = resample(resample(maps, self._grid.side).swapaxes(0, 1), self._grid.side).swapaxes(0, 1)
        return np.ascontiguousarray(values.reshape(self._grid.units, -1))


def _novelty(edge: EdgeModel, scores: EdgeScores, frames: int) -> list[float]:
    """Per frame, how unlike the taught classes it is. By what the edge sees: no coding can blur it."""
    head = edge.head
    if head is None or head.unknown is None or scores.read is None:
        return [0.0] * frames
    rule = head.unknown
    distances = rule.scores(part_of(scores.read, rule.reads))
    return [float(distance) for distance in distances / max(rule.threshold, _SMALLEST)]
