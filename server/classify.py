"""Runs the server model on received units: a batch of frames in, the most likely classes of each frame out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch.nn.utils.rnn import pad_sequence

from sagelink.models.heads.head import Reads
from sagelink.models.heads.readout import LinearReadout, can_pad, features_of, logits_of
from sagelink.models.loading import Model
from sagelink.models.vit import embed_units, sequence_of_units, token_table
from sagelink.pipeline.types import TopClasses
from sagelink.server.batch import passes
from sagelink.server.receive import Received
from sagelink.transport.codecs import Canvas
from sagelink.transport.patch_embedding import Embedding

T = TypeVar("T")
TOP = 5
_CPU_PADDING = 0.1  # share of the units; on a CPU more padding costs more than larger passes gain (bench.server)

Asked = Sequence[LinearReadout | None]  # the classifiers that answer for a frame; None: the one of the model


@dataclass(frozen=True, slots=True)
class _Network:
    vit: VisionTransformer
    table: torch.Tensor


class Classifier:
    """The server model. Blocking; thread-safe."""

    def __init__(self, model: Model) -> None:
        self._model = model
        padding = _CPU_PADDING if model.mean.device.type == "cpu" else math.inf
        self._max_padding = padding if can_pad(model.vit) else 0.0
        with torch.inference_mode():
            self._full = _Network(model.vit, token_table(model.vit))
            self._partial = _Network(model.partial.vit, token_table(model.partial.vit)) if model.partial else None
        self.canvas = Canvas(model.grid.side, model.grid.patch_size, Embedding(*model.embedding()))

    @property
    def model(self) -> Model:
        return self._model

    def __call__(self, batch: Sequence[Received], heads: Asked | None = None) -> list[TopClasses]:
        """The most likely classes of each frame, in order. Frames of different heads share the forward passes.

        `heads`: the classifier of each frame; None: the one of the model.
        """
        return [answer[0] for answer in self.answers(batch, [(head,) for head in heads or [None] * len(batch)])]

    @torch.inference_mode()
    def answers(self, batch: Sequence[Received], heads: Sequence[Asked]) -> list[list[TopClasses]]:
        """The most likely classes of each frame by each of its classifiers, in order: one pass of the model, however
        many classifiers there are."""
        asked = {id(received): each for received, each in zip(batch, heads, strict=True)}
        return self._by_passes(batch, lambda frames: self._classify(frames, [asked[id(frame)] for frame in frames]))

    @torch.inference_mode()
    def features(self, batch: Sequence[Received], reads: Reads) -> list[NDArray[np.float32]]:
        """What a head reads of each frame, (F,), in order: see `models.heads.readout`."""

        def read(frames: Sequence[Received]) -> list[NDArray[np.float32]]:
            tokens, present = self._final_tokens(frames)
            return [*features_of(self._network(frames[0]).vit, tokens, reads, present).float().cpu().numpy()]

        return self._by_passes(batch, read)

    def _by_passes(self, batch: Sequence[Received], run: Callable[[Sequence[Received]], list[T]]) -> list[T]:
        results: dict[int, T] = {}
        for group in self.passes(batch):
            results.update(zip(group, run([batch[index] for index in group]), strict=True))
        return [results[index] for index in range(len(batch))]

    def passes(self, batch: Sequence[Received]) -> list[list[int]]:
        """Groups of frame indices that share a forward pass, by the weights that each needs and its number of units."""
        result: list[list[int]] = []
        networks = [self._network(received) for received in batch]
        for network in (self._full, self._partial):
            rows = [index for index, needed in enumerate(networks) if needed is network]
            groups = passes([len(batch[index].units) for index in rows], self._max_padding)
            result += [[rows[place] for place in group] for group in groups]
        return result

    def _network(self, received: Received) -> _Network:
        """The weights for this amount of evidence: little evidence has its own."""
        partial = self._model.partial
        if self._partial is None or partial is None:
            return self._full
        short = received.size is not None and received.size <= partial.max_bytes
        return self._partial if short or len(received.units) <= partial.max_units else self._full

    def _classify(self, frames: Sequence[Received], heads: Sequence[Asked]) -> list[list[TopClasses]]:
        """Classifies frames of one network in one forward pass."""
        network = self._network(frames[0]).vit
        tokens, present = self._final_tokens(frames)
        rows: dict[LinearReadout | None, list[int]] = {}
        for row, asked in enumerate(heads):
            for head in asked:
                rows.setdefault(head, []).append(row)
        reads_of_all = {head.reads for head in rows if head is not None}
        features = {reads: features_of(network, tokens, reads, present) for reads in reads_of_all}
        tops: dict[tuple[int, LinearReadout | None], TopClasses] = {}
        for head, places in rows.items():
            if head is None:
                logits = logits_of(network, tokens[places], None if present is None else present[places])
            else:
                logits = head(features[head.reads][places])
            tops.update(zip([(place, head) for place in places], _top(logits), strict=True))
        return [[tops[row, head] for head in asked] for row, asked in enumerate(heads)]

    def _final_tokens(self, frames: Sequence[Received]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Final tokens (B, P + K, D) of frames of one network, and which units are no padding (None: all)."""
        network = self._network(frames[0])
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
        sequence = sequence_of_units(network.vit, tokens, places, network.table)
        return self._model.final_tokens(network.vit, sequence, present), present

    def _tokens(self, frames: Sequence[Received]) -> list[torch.Tensor]:
        """Tokens (K, D) of each frame: received tokens as they are, received pixels embedded in one call."""
        device = self._model.mean.device
        pixels = [np.asarray(received.content, np.uint8) for received in frames if received.content.ndim > 2]
        embedded: Iterator[torch.Tensor] = iter(())
        if pixels:
            tokens = embed_units(self._model.vit, self._model.normalise(np.concatenate(pixels))[None])[0]
            embedded = iter(torch.split(tokens, [len(patches) for patches in pixels]))
        return [
            next(embedded) if received.content.ndim > 2 else torch.from_numpy(received.content).to(device)
            for received in frames
        ]


def _top(logits: torch.Tensor) -> list[TopClasses]:
    """The most likely classes of each row of logits (B, C)."""
    log_probs = logits.float().log_softmax(1)
    values, classes = log_probs.topk(min(TOP, log_probs.shape[1]))
    return [(tuple(c), tuple(v)) for c, v in zip(classes.tolist(), values.tolist(), strict=True)]
