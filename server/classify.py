"""Classify: the server model on the units that arrived."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.vit import classify_units, embed_units, token_table
from models.zoo import Model
from server.receive import Received
from transport.codecs import Canvas
from transport.embedding import Embedding

TOP = 5


class Classifier:
    """The server model. Blocking; used from one thread."""

    def __init__(self, model: Model) -> None:
        self._model = model
        with torch.inference_mode():
            self._table = token_table(model.vit)
        self.canvas = Canvas(model.grid.side, model.grid.patch_size, Embedding(*model.embedding()))

    @property
    def model(self) -> Model:
        return self._model

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Received]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Top class ids and log-probabilities of each frame; all frames of a batch have the same number of units."""
        content = torch.stack([self._tensor(received) for received in batch])
        units = torch.from_numpy(np.stack([received.units for received in batch])).to(content.device)
        log_probs = classify_units(self._model.vit, content, units, self._table).float().log_softmax(1)
        values, classes = log_probs.topk(min(TOP, log_probs.shape[1]))
        return [(tuple(c), tuple(v)) for c, v in zip(classes.tolist(), values.tolist(), strict=True)]

    def _tensor(self, received: Received) -> torch.Tensor:
        """Tokens (K, D) as they are; pixels embedded, so that both kinds share a batch."""
        if received.content.ndim == 2:
            return torch.from_numpy(received.content).to(self._model.mean.device)
        return embed_units(self._model.vit, self._model.normalise(np.asarray(received.content, np.uint8))[None])[0]
