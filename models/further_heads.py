"""Further heads of a camera: more classifiers on the features that the edge model computes anyway.

The first head of a run drives importance and gate: it decides what is sent. A further head answers about the same
features at the edge, and about the same evidence at the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.models.apply_head import backbone_digest, check_side
from sagelink.models.head import Head, HeadSide, read_head
from sagelink.models.loading import Model
from sagelink.models.readout import part_of
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Answer, HeadAnswer


@dataclass(frozen=True, slots=True, eq=False)
class NamedHead:
    """A loaded head with its name in the results."""

    name: str
    head: Head
    side: HeadSide  # the classifier of the edge

    @classmethod
    def load_all(
        cls, paths: Mapping[str, Path], first: Head | None, edge: Model, server: Model
    ) -> tuple[NamedHead, ...]:
        """The heads in these files, by name. `first`: the head that decides what is sent; `server` may be an outline.
        Raises UsageError for a file that is no head, or one that was taught on another pair of models."""
        digest = backbone_digest(edge) if paths else ""
        loaded = []
        for name, path in paths.items():
            head = read_head(path)
            try:
                check_side(head.edge, edge, "edge", digest)
                if server.can_compute:
                    check_side(head.server, server, "server")
                elif first is not None and head.card.server.backbone != first.card.server.backbone:
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
        return cls(name, head, head.answering(head.edge))

    def answers(self, features: NDArray[np.float32]) -> list[HeadAnswer]:
        """One answer for each row of features (B, 2 D): class token and mean of the units."""
        side, rule = self.side, self.head.unknown
        logits = (part_of(features, side.card.reads) @ side.weight.T + side.bias) / side.card.temperature
        edge = [Answer.from_log_scores(row) for row in logits]
        rejected = [False] * len(edge) if rule is None else rule.rejects(part_of(features, rule.reads)).tolist()
        taught = self.head.taught
        return [
            HeadAnswer(self.name, taught, answer, none, answer) for answer, none in zip(edge, rejected, strict=True)
        ]
