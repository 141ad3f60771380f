"""Evaluation harness: runs images through the edge model and messages through the server model, without a link.

In: images with their class id, or encoded evidence messages. Out: edge features per image, or server answers. There is
no budget, no gate and no clock; server answers are computed in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sagelink.models.model_contract import Importance
from sagelink.models.pair import Pair
from sagelink.models.preprocess import Resize, make_picture
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.config.stages import SelectConfig
from sagelink.pipeline.types import WHOLE, Frame, OperatingPoint, Pixels, Scored, Units
from sagelink.server.classify import Classifier
from sagelink.server.receive import Received, receive
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.fuse import spread
from sagelink.stages.score import Score
from sagelink.stages.selectors import selector_by_name
from sagelink.stages.zoom import ZoomCrop
from sagelink.transport.codecs import Canvas, cut_units

EDGE_BATCH = 8  # frames per forward pass of the edge model
_SERVER_BATCH = 32
# Side of the padded view over the side of the model's picture: a zoom crop of 0.7 of the side has full resolution.
PADDED_SCALE = 10 / 7
_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image as the edge model scored it, ready to be encoded."""

    picture: Pixels  # (S, S, 3), input of the server model
    order: Units  # all units, best first
    edge: NDArray[np.float32]  # (C,), log-probabilities of the edge model
    padded_view: Pixels  # see `EdgeFeatures`
    importance: NDArray[np.float32]  # (N,)
    truth: int | None = None  # class id


@dataclass(frozen=True, slots=True)
class EdgeFeatures:
    """Result of the edge model for one image."""

    scored: Scored  # without the pixels of its frame, to save memory
    importance: dict[Importance, np.ndarray]  # (N,) per kind
    padded_view: Pixels  # (V, V, 3), V = PADDED_SCALE x S: the view at a resolution from which zoom crops are drawn


def zoom_crop_of(padded_view: Pixels, importance: NDArray[np.float32], grid: UnitGrid) -> ZoomCrop:
    """Zoom crops of a padded view, as pictures for the server model that has this grid."""
    return ZoomCrop(
        WHOLE,
        importance,
        lambda part: make_picture(padded_view, grid.image_size, "squash", grid.interpolation, crop=part),
    )


class Harness:
    """A pair of models, and the functions of a run that turn frames into answers."""

    def __init__(self, pair: Pair, resize: Resize) -> None:
        self.pair = pair
        self._resize: Resize = resize
        self.classifier = Classifier(pair.server)
        self.canvas = self.classifier.canvas
        self.encoder = Encoder([], self.canvas)

    def features(
        self, images: Iterable[tuple[np.ndarray, int | None]], kinds: Sequence[Importance]
    ) -> Iterator[EdgeFeatures]:
        """Edge features of each image, in order, with the importance of every kind."""
        scorers = {kind: Score(self.pair.edge, self.pair.server.grid, kind, self._resize) for kind in kinds}
        for batch in batched(enumerate(images), EDGE_BATCH):
            frames = [Frame(seq, "lab", 0, 0.0, pixels, 0.0, truth=truth) for seq, (pixels, truth) in batch]
            scored = {kind: scorer(frames) for kind, scorer in scorers.items()}
            for i, first in enumerate(scored[kinds[0]]):
                yield EdgeFeatures(
                    replace(first, frame=replace(first.frame, pixels=_NO_PIXELS)),
                    {kind: all_of[i].importance for kind, all_of in scored.items()},
                    self._padded_view(first.frame.pixels),
                )

    def _padded_view(self, pixels: Pixels) -> Pixels:
        grid = self.pair.server.grid
        side = round(PADDED_SCALE * grid.image_size)
        return make_picture(pixels, side, self._resize, grid.interpolation, grid.crop_pct)

    def samples(self, images: Iterable[tuple[np.ndarray, int | None]], select: SelectConfig) -> Iterator[Sample]:
        """Images with all units in the order in which a run would send them."""
        selector = selector_by_name(select.selector)
        for features in self.features(images, [select.importance]):
            scored = features.scored
            seed = select.seed + scored.frame.seq
            order = selector(scored.importance, scored.embeddings, self.canvas.units, seed=seed)
            edge, truth = scored.answer.log_probs, scored.frame.truth
            yield Sample(scored.picture, order, edge, features.padded_view, scored.importance, truth)

    def full_message(self, seq: int, picture: Pixels) -> bytes:
        """A message with all units of a picture, lossless."""
        point = OperatingPoint("raw-zstd", self.canvas.units, self.canvas.pixels, 0)
        return self.encoder.message(seq, picture, np.arange(self.canvas.units), point)

    def answers(self, messages: Iterable[bytes], step: Callable[[int], None] = lambda done: None) -> list[Answer]:
        """The server's answers to evidence messages. Calls `step` with the size of each finished batch."""
        answers: list[Answer] = []
        for batch in batched(messages, _SERVER_BATCH):
            answers += server_answers(self.classifier, [receive(message, self.canvas) for message in batch])
            step(len(batch))
        return answers


def full_evidence(picture: Pixels, canvas: Canvas) -> Received:
    """Evidence with all units of a picture, as if it had been received without loss."""
    units = np.arange(canvas.units)
    return Received(0, units, cut_units(picture, units, canvas.patch_size))


def server_answers(classifier: Classifier, evidence: Sequence[Received]) -> list[Answer]:
    """The server's answers, as the edge restores them from the top classes of a reply."""
    classes = len(classifier.model.labels)
    return [
        Answer.from_log_scores(spread(top, classes))
        for batch in batched(evidence, _SERVER_BATCH)
        for top in classifier(batch)
    ]


def server_log_probs(classifier: Classifier, evidence: Sequence[Received]) -> NDArray[np.float32]:
    """Log-probabilities (B, C) of `server_answers`."""
    return np.stack([answer.log_probs for answer in server_answers(classifier, evidence)])


def mean_full_frame_prob(answers: NDArray[np.float32], full: NDArray[np.float32]) -> float:
    """Mean probability of the full frames' top classes in `answers`; both are log-probabilities (B, C)."""
    return float(np.exp(answers[np.arange(len(full)), full.argmax(1)]).mean())


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last one may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
