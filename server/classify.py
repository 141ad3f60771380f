"""Classify: the server model on the units that arrived, frames of unequal length side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from models.vit import can_pad, classify_units, embed_units, token_table
from models.zoo import Model
from server.batch import passes
from server.receive import Received
from transport.codecs import Canvas
from transport.embedding import Embedding

TOP = 5
_CPU_PADDING = 0.1  # of the units: a CPU gains less by larger passes than it loses by padding (bench.server)

Top = tuple[tuple[int, ...], tuple[float, ...]]  # class ids, most likely first, and their log-probabilities


class Classifier:
    """The server model. Blocking; safe to call from several threads."""

    def __init__(self, model: Model) -> None:
        self._model = model
        padding = _CPU_PADDING if model.mean.device.type == "cpu" else math.inf
        self._most_padding = padding if can_pad(model.vit) else 0.0
        with torch.inference_mode():
            self._table = token_table(model.vit)
        self.canvas = Canvas(model.grid.side, model.grid.patch_size, Embedding(*model.embedding()))

    @property
    def model(self) -> Model:
        return self._model

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Received]) -> list[Top]:
        """The answer to each frame, in order."""
        answers: dict[int, Top] = {}
        for group in self.passes([len(received.units) for received in batch]):
            tops = self._classify([batch[index] for index in group])
            answers.update(zip(group, tops, strict=True))
        return [answers[index] for index in range(len(batch))]

    def passes(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of frames that share a forward pass, by how many units each has."""
        return passes(lengths, self._most_padding)

    def _classify(self, frames: Sequence[Received]) -> list[Top]:
        lengths = np.array([len(received.units) for received in frames])
        longest = int(lengths.max())
        units = np.zeros((len(frames), longest), np.int64)
        for row, received in enumerate(frames):
            units[row, : lengths[row]] = received.units
        tokens = pad_sequence(self._tokens(frames), batch_first=True)  # (B, K, D)
        present = None
        if (lengths < longest).any():
            present = torch.from_numpy(np.arange(longest) < lengths[:, None]).to(tokens.device)
        places = torch.from_numpy(units).to(tokens.device)
        log_probs = classify_units(self._model.vit, tokens, places, self._table, present).float().log_softmax(1)
        values, classes = log_probs.topk(min(TOP, log_probs.shape[1]))
        return [(tuple(c), tuple(v)) for c, v in zip(classes.tolist(), values.tolist(), strict=True)]

    def _tokens(self, frames: Sequence[Received]) -> list[torch.Tensor]:
        """Tokens (K, D) of each frame: those that came as they are, pixels embedded, all frames of a batch at once."""
        device = self._model.mean.device
        pixels = [np.asarray(received.content, np.uint8) for received in frames if received.content.ndim > 2]
        embedded: Iterator[torch.Tensor] = iter(())
        if pixels:
            tokens = embed_units(self._model.vit, self._model.normalise(np.concatenate(pixels))[None])[0]
            embedded = iter(torch.split(tokens, [len(each) for each in pixels]))
        return [
            next(embedded) if received.content.ndim > 2 else torch.from_numpy(received.content).to(device)
            for received in frames
        ]
