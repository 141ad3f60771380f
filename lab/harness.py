"""What an evaluation computes once: edge features of every picture, and server answers in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sagelink.models.loading import UnitGrid
from sagelink.models.pair import Pair
from sagelink.models.preprocess import Resize, make_picture
from sagelink.models.vit import Importance
from sagelink.pipeline.config import SelectConfig
from sagelink.pipeline.types import WHOLE, Answer, Frame, Pixels, Reply, Scored, Units
from sagelink.server.classify import Classifier
from sagelink.server.receive import Received, receive
from sagelink.stages.encoder import Encoder
from sagelink.stages.fuse import spread
from sagelink.stages.score import Score
from sagelink.stages.selectors import selector_by_name
from sagelink.stages.zoom import ZoomCrop

_BATCH = 32
_SCORED = 8  # pictures of a forward pass of the edge
T = TypeVar("T")
_BLANK = np.zeros((0, 0, 3), np.uint8)
ROOM = 10 / 7  # pixels of a view that is kept for each of the model's picture: how far one may go in without blur


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A picture as the edge has scored it."""

    picture: Pixels
    order: Units  # all units, best first
    edge: NDArray[np.float32]  # log-probabilities (C,)
    padded_view: Pixels  # see `EdgeFeatures`
    importance: NDArray[np.float32]  # (N,)
    truth: int | None = None


@dataclass(frozen=True, slots=True)
class EdgeFeatures:
    """What the edge made of one picture."""

    scored: Scored  # its frame's pixels are let go
    importance: dict[Importance, np.ndarray]  # (N,) of each kind
    padded_view: Pixels  # (V, V, 3), V = ROOM x S: the view, all that crops and closer looks need of the frame


def zoom_crop_of(padded_view: Pixels, importance: NDArray[np.float32], grid: UnitGrid) -> ZoomCrop:
    """Closer looks at a view, for a server model of a grid."""
    return ZoomCrop(
        WHOLE,
        importance,
        lambda part: make_picture(padded_view, grid.image_size, "squash", grid.interpolation, crop=part),
    )


class Harness:
    """A pair of models, and the path of a frame through them without budget, gate and clock."""

    def __init__(self, pair: Pair, resize: Resize) -> None:
        self.pair = pair
        self._resize: Resize = resize
        self.classifier = Classifier(pair.server)
        self.canvas = self.classifier.canvas
        self.encoder = Encoder([], self.canvas)

    def features(
        self, pictures: Iterable[tuple[np.ndarray, int | None]], kinds: Sequence[Importance]
    ) -> Iterator[EdgeFeatures]:
        """The edge's view of each picture, importance of every kind, in order."""
        scorers = {kind: Score(self.pair.edge, self.pair.server.grid, kind, self._resize) for kind in kinds}
        for part in batched(enumerate(pictures), _SCORED):
            frames = [Frame(seq, "lab", 0, 0.0, pixels, 0.0, truth=truth) for seq, (pixels, truth) in part]
            scored = {kind: scorer(frames) for kind, scorer in scorers.items()}
            for i, first in enumerate(scored[kinds[0]]):
                yield EdgeFeatures(
                    replace(first, frame=replace(first.frame, pixels=_BLANK)),
                    {kind: all_of[i].importance for kind, all_of in scored.items()},
                    self._padded_view(first.frame.pixels),
                )

    def _padded_view(self, pixels: Pixels) -> Pixels:
        grid = self.pair.server.grid
        return make_picture(pixels, round(ROOM * grid.image_size), self._resize, grid.interpolation, grid.crop_pct)

    def samples(self, pictures: Iterable[tuple[np.ndarray, int | None]], select: SelectConfig) -> Iterator[Sample]:
        """Pictures as `sagelink.lab.frontier_measurement` measures them: all units in the order that a run would send them."""
        selector = selector_by_name(select.selector)
        for seen in self.features(pictures, [select.importance]):
            scored = seen.scored
            seed = select.seed + scored.frame.seq
            order = selector(scored.importance, scored.embeddings, self.canvas.units, seed=seed)
            edge, truth = scored.answer.log_probs, scored.frame.truth
            yield Sample(scored.picture, order, edge, seen.padded_view, scored.importance, truth)

    def answers(self, messages: Iterable[bytes], step: Callable[[int], None]) -> list[Answer]:
        """The server's answers to evidence messages. `step` is told how many more are done."""
        answers: list[Answer] = []
        for part in batched(messages, _BATCH):
            answers += answers_of(self.classifier, [receive(message, self.canvas) for message in part])
            step(len(part))
        return answers


def answers_of(classifier: Classifier, evidence: Sequence[Received]) -> list[Answer]:
    """The server's answers as the edge reads them from the replies."""
    classes = len(classifier.model.labels)
    return [
        Answer.from_log_scores(spread(Reply(0, None, *top, 0, 0.0), classes))
        for part in batched(evidence, _BATCH)
        for top in classifier(part)
    ]


def log_probs_of(classifier: Classifier, evidence: Sequence[Received]) -> NDArray[np.float32]:
    """The server's log-probabilities (B, C) as the edge gets to know them."""
    return np.stack([answer.log_probs for answer in answers_of(classifier, evidence)])


def belief(answers: NDArray[np.float32], full: NDArray[np.float32]) -> float:
    """The mean probability that answers, log-probabilities (B, C), give to the classes of the full frames' answers."""
    return float(np.exp(answers[np.arange(len(full)), full.argmax(1)]).mean())


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last may be shorter."""
    source = iter(items)
    while part := list(islice(source, size)):
        yield part
