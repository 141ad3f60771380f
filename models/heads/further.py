"""Further heads of a camera: more classifiers on the features that the edge model computes anyway.

The first head of a run drives importance and gate: it decides what is sent. A further head answers about the same
features at the edge, and about the same evidence at the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.models.heads.head import Head, read_head
from sagelink.models.heads.linear_classifier import LinearClassifier, part_of
from sagelink.models.model_contract import ServerModel
from sagelink.pipeline.answers import Answer, HeadAnswer
from sagelink.pipeline.errors import UsageError


@dataclass(frozen=True, slots=True, eq=False)
class NamedHead:
    """A loaded head with its name in the results."""

    name: str
    head: Head
    classifier: LinearClassifier  # of the edge

    @classmethod
    def load_all(
        cls, paths: Mapping[str, Path], first: Head | None, check: Callable[[Head], None], server: ServerModel
    ) -> tuple[NamedHead, ...]:
        """The heads in these files, by name. `first`: the head that decides what is sent. `check`: as
        `RunModels.check_head`. Raises UsageError for a file that is no head, or one that was taught on another pair of
        models."""
        loaded = []
        for name, path in paths.items():
            head = read_head(path)
            try:
                check(head)
                other = first is not None and head.card.server.backbone != first.card.server.backbone
                if first is not None and other and not server.can_compute:
                    raise UsageError(
                        f"it was taught on server model {head.card.server.model!r}, and the first head on another one, "
                        f"{first.card.server.model!r}; accepted: heads of one pair of models"
                    )
            except UsageError as error:
                raise UsageError(f"head {name!r}, {str(path)!r}: {error}") from None
            loaded.append(cls.of(name, head))
        return tuple(loaded)

    @classmethod
    def of(cls, name: str, head: Head) -> NamedHead:
        return cls(name, head, LinearClassifier.of_side(head.answering(head.edge)))

    def answers(self, features: NDArray[np.float32]) -> list[HeadAnswer]:
        """One answer for each row of features (B, 2 D): class token and mean of the units."""
        rule = self.head.unknown
        edge = [Answer.from_log_scores(row) for row in self.classifier.logits(features)]
        rejected = [False] * len(edge) if rule is None else rule.rejects(part_of(features, rule.reads)).tolist()
        taught = self.head.taught
        return [
            HeadAnswer(self.name, taught, answer, none, answer) for answer, none in zip(edge, rejected, strict=True)
        ]
