"""Score: one forward pass of the edge model gives an answer, importance and embeddings."""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models import vit
from models.picture import Resize, make_picture
from models.zoo import Model, UnitGrid
from pipeline.types import Answer, Frame, Pixels, Scored


class Score:
    """The edge model, seen through the server's unit grid. Blocking: goes into a thread."""

    def __init__(self, edge: Model, grid: UnitGrid, importance: str, resize: Resize) -> None:
        """`importance`: last or rollout. Raises UnsupportedModel when the edge model has no CLS attention."""
        vit.check_attention(edge.vit, edge.name)
        self._edge = edge
        self._grid = grid
        self._rollout = importance == "rollout"
        self._resize: Resize = resize

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Scored:
        began = time.perf_counter()
        picture = self._picture(frame.pixels, self._grid)
        same = (self._edge.grid.image_size, self._edge.grid.interpolation) == (
            self._grid.image_size,
            self._grid.interpolation,
        )
        seen = picture if same else self._picture(frame.pixels, self._edge.grid)
        features = vit.score(self._edge.vit, self._edge.normalise(seen)[None], rollout=self._rollout)
        log_probs = features.logits[0].log_softmax(0).float().cpu().numpy()
        best = int(log_probs.argmax())
        return Scored(
            frame=frame,
            picture=picture,
            answer=Answer(best, float(np.exp(log_probs[best])), log_probs),
            importance=self._on_grid(features.importance[0, :, None])[:, 0],
            embeddings=self._on_grid(features.embeddings[0]),
            score_ms=(time.perf_counter() - began) * 1e3,
        )

    def _picture(self, pixels: Pixels, grid: UnitGrid) -> Pixels:
        # The server's crop for both: the two must see the same part of the frame.
        return make_picture(pixels, grid.image_size, self._resize, grid.interpolation, self._grid.crop_pct)

    def _on_grid(self, values: Tensor) -> NDArray[np.float32]:
        """(N, D) on the edge's grid to (N', D) on the server's."""
        ours, theirs = self._edge.grid.side, self._grid.side
        if ours != theirs:
            maps = values.T.reshape(1, -1, ours, ours)
            values = F.interpolate(maps, (theirs, theirs), mode="bilinear", antialias=True)[0].flatten(1).T
        return np.ascontiguousarray(values.float().cpu().numpy())
