"""Further heads of a camera: more classifiers on the features that the edge model computes anyway.

The first head of a run drives importance, gate and server; a further head adds the edge's own answer to each frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.models.apply_head import check_side
from sagelink.models.head import Head, HeadSide, read_head
from sagelink.models.loading import Model
from sagelink.models.readout import part_of
from sagelink.pipeline.types import UNKNOWN, HeadAnswer


@dataclass(frozen=True, slots=True, eq=False)
class NamedHead:
    """A loaded head with its name in the results."""

    name: str
    head: Head
    side: HeadSide  # the classifier of the edge

    @classmethod
    def load(cls, name: str, path: Path, edge: Model) -> NamedHead:
        """Raises UsageError for a file that is no head, or one that was taught on another edge model."""
        head = read_head(path)
        check_side(head.edge, edge, "edge")
        return cls(name, head, head.answering(head.edge))

    def answers(self, features: NDArray[np.float32]) -> list[HeadAnswer]:
        """One answer for each row of features (B, 2 D): class token and mean of the units."""
        side, rule, classes, several = self.side, self.head.unknown, self.head.classes, self.head.taught.several
        logits = part_of(features, side.card.reads) @ side.weight.T + side.bias
        scores = np.exp((logits - logits.max(1, keepdims=True)) / side.card.temperature)
        probs = scores / scores.sum(1, keepdims=True)
        rejected = [False] * len(probs) if rule is None else rule.rejects(part_of(features, rule.reads)).tolist()
        return [
            HeadAnswer(
                self.name,
                UNKNOWN if none else classes[best],
                None if none else best,
                float(row[best]),
                None if several is None else several.probs(row),
            )
            for row, best, none in zip(probs, probs.argmax(1).tolist(), rejected, strict=True)
        ]
