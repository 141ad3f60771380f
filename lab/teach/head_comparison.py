"""Compares a newly taught head with the head that a run uses, on labelled pictures that neither has learned from.

The new head's answers are held out by cross-validation (`Taught`). The old head's are computed: it must not have
learned from these pictures. Both are fused answers of edge and server to full pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sagelink.lab.harness import Harness, full_evidence, server_log_probs
from sagelink.lab.probabilities import Matrix
from sagelink.lab.teach.pictures import Pictures
from sagelink.lab.teach.teaching import Taught
from sagelink.models.heads.apply import apply_head
from sagelink.models.heads.head import Head
from sagelink.models.pair import Pair
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.config.schema import Config
from sagelink.stages.fuse import fuse

_SMALLEST = 1e-4  # probability of the true class that counts at least: one wild answer does not decide


@dataclass(frozen=True, slots=True)
class HeadComparison:
    """Right answers and mean log loss of both heads on the same pictures."""

    pictures: int
    old_right: int
    new_right: int
    old_loss: float
    new_loss: float

    @property
    def better(self) -> bool:
        """Whether the new head has more right answers; with as many, whether its probabilities are better."""
        return (self.new_right, -self.new_loss) > (self.old_right, -self.old_loss)


def compare_heads(
    old: Head, taught: Taught, pictures: Pictures, rows: Sequence[int], pair: Pair, config: Config
) -> HeadComparison:
    """`rows`: the pictures to compare on. A class that the old head does not know is a wrong answer of it."""
    truth = [pictures.classes[taught.ids[row]] for row in rows]
    new = _probs(taught.by_size[-1].fused[list(rows)], pictures.classes, truth)
    before = _probs(_answers(old, pictures, rows, pair, config), old.classes, truth)
    new_right, old_right = (int(right.sum()) for _, right in (new, before))
    new_loss, old_loss = (float(-np.log(np.maximum(probs, _SMALLEST)).mean()) for probs, _ in (new, before))
    return HeadComparison(len(rows), old_right, new_right, old_loss, new_loss)


def _probs(log_probs: Matrix, classes: Sequence[str], truth: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the true class (n,), and whether the answer is right (n,)."""
    places = [classes.index(name) if name in classes else -1 for name in truth]
    probs = [float(np.exp(row[place])) if place >= 0 else 0.0 for row, place in zip(log_probs, places, strict=True)]
    return np.array(probs), np.array(log_probs).argmax(1) == np.array(places)


def _answers(head: Head, pictures: Pictures, rows: Sequence[int], pair: Pair, config: Config) -> Matrix:
    """Fused log-probabilities (n, C) of a head."""
    edge, server = apply_head(head, pair.edge, pair.server)
    harness = Harness(Pair(edge, server), config.capture.resize)
    weight = head.card.weights[-1][1]
    answers = []
    for features in harness.features(((pictures.read(row), None) for row in rows), [config.select.importance]):
        scored = features.scored
        log_probs = server_log_probs(harness.classifier, [full_evidence(scored.picture, harness.canvas)])[0]
        fused = fuse(scored.answer, Answer.from_log_probs(log_probs), weight, head.card.overlap)
        answers.append(fused.log_probs)
    return np.stack(answers).astype(np.float64)
