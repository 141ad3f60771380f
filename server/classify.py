"""Classify: the server model on the units that arrived."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.vit import classify_units, token_table
from models.zoo import Model
from server.receive import Received

TOP = 5


class Classifier:
    """The server model. Blocking; used from one thread."""

    def __init__(self, model: Model) -> None:
        self._model = model
        with torch.inference_mode():
            self._table = token_table(model.vit)

    @property
    def model(self) -> Model:
        return self._model

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Received]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """Top class ids and log-probabilities of each frame; all frames of a batch have the same number of units."""
        patches = self._model.normalise(np.stack([received.patches for received in batch]))  # (B, K, 3, p, p)
        units = torch.from_numpy(np.stack([received.units for received in batch])).to(patches.device)
        log_probs = classify_units(self._model.vit, patches, units, self._table).float().log_softmax(1)
        values, classes = log_probs.topk(min(TOP, log_probs.shape[1]))
        return [(tuple(c), tuple(v)) for c, v in zip(classes.tolist(), values.tolist(), strict=True)]
