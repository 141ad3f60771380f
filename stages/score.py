"""Score: one forward pass of the edge model gives an answer, importance and embeddings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sagelink.models import vit
from sagelink.models.loading import Model, UnitGrid
from sagelink.models.preprocess import Resize, make_picture
from sagelink.pipeline.types import WHOLE, Answer, Box, EdgeView, Frame, Pixels, Scored
from sagelink.stages.zoom import ZoomSchedule, thumbnail_of


class Score:
    """The edge model, seen through the server's unit grid. Blocking: goes into a thread."""

    def __init__(
        self,
        edge: Model,
        grid: UnitGrid,
        importance: vit.Importance,
        resize: Resize,
        looks: Mapping[str, ZoomSchedule] | None = None,
    ) -> None:
        """`looks`: by camera, of those that are not always looked at whole. Raises UsageError when the edge model has
        no CLS attention."""
        vit.check_attention(edge.vit, edge.name)
        self._edge = edge
        self._grid = grid
        self._importance: vit.Importance = importance
        self._resize: Resize = resize
        self._looks = looks or {}

    @torch.no_grad()  # not inference mode: the gradient starts inside
    def __call__(self, frames: Sequence[Frame]) -> list[Scored]:
        """All in one forward pass; `score_ms` is that of the whole batch, because each frame waits for all."""
        began = time.perf_counter()
        thumbs = [thumbnail_of(frame.pixels) for frame in frames]
        parts = [self._part(frame, thumb) for frame, thumb in zip(frames, thumbs, strict=True)]
        pictures = self._pictures(frames, parts, self._grid)
        same = (self._edge.grid.image_size, self._edge.grid.interpolation) == (
            self._grid.image_size,
            self._grid.interpolation,
        )
        seen = pictures if same else self._pictures(frames, parts, self._edge.grid)
        features = vit.score(self._edge.vit, self._edge.normalise(np.stack(seen)), self._importance)
        log_probs = features.logits.log_softmax(1).float().cpu().numpy()
        importance = [self._on_grid(each[:, None])[:, 0] for each in features.importance]
        embeddings = [self._on_grid(each) for each in features.embeddings]
        summaries = features.class_token.float().cpu().numpy()
        for frame, part, found in zip(frames, parts, importance, strict=True):
            if looks := self._looks.get(frame.camera):
                looks.update(part, found)
        score_ms = (time.perf_counter() - began) * 1e3
        return [
            Scored(
                frame=frame,
                picture=pictures[i],
                answer=Answer.from_log_probs(log_probs[i]),
                importance=importance[i],
                embeddings=embeddings[i],
                edge_view=EdgeView(parts[i], summaries[i], thumbs[i]),
                score_ms=score_ms,
            )
            for i, frame in enumerate(frames)
        ]

    def _part(self, frame: Frame, thumb: NDArray[np.float32]) -> Box:
        looks = self._looks.get(frame.camera)
        return looks.next_crop(thumb) if looks else WHOLE

    def _pictures(self, frames: Sequence[Frame], parts: Sequence[Box], grid: UnitGrid) -> list[Pixels]:
        return [self._draw(frame, part, grid) for frame, part in zip(frames, parts, strict=True)]

    def draw(self, frame: Frame, part: Box) -> Pixels:
        """What the server would see of a part of a frame's view."""
        return self._draw(frame, part, self._grid)

    def _draw(self, frame: Frame, part: Box, grid: UnitGrid) -> Pixels:
        # The server's crop for both: the two must see the same part of the frame.
        crop_pct, resize = self._grid.crop_pct, self._resize
        return make_picture(frame.pixels, grid.image_size, resize, grid.interpolation, crop_pct, part)

    def _on_grid(self, values: Tensor) -> NDArray[np.float32]:
        """(N, D) on the edge's grid to (N', D) on the server's."""
        ours, theirs = self._edge.grid.side, self._grid.side
        if ours != theirs:
            maps = values.T.reshape(1, -1, ours, ours)
            values = F.interpolate(maps, (theirs, theirs), mode="bilinear", antialias=True)[0].flatten(1).T
        return np.ascontiguousarray(values.float().cpu().numpy())
