"""What a run needs of its two models, whatever computes them. This module loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sagelink.models.heads.head import Floats, Head
from sagelink.models.labels import IMAGENET_FINGERPRINT, labels_fingerprint
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.types import Pixels

Importance = Literal["last", "rollout", "gradient"]


@dataclass(frozen=True, slots=True, eq=False)
class EdgeScores:
    """Result of one edge pass over B pictures of N units."""

    logits: Floats  # (B, C)
    importance: Floats  # (B, N)
    embeddings: Floats  # (B, N, D) unit tokens after the final norm
    class_token: Floats  # (B, D) after the final norm
    read: Floats | None = None  # (B, 2 D) what heads can read: class token and mean of the units; None without a head


class EdgeModel(Protocol):
    """Scores pictures."""

    @property
    def name(self) -> str: ...

    @property
    def grid(self) -> UnitGrid: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def head(self) -> Head | None:
        """The head file that the classes come from."""
        ...

    def score(self, pictures: Pixels, importance: Importance) -> EdgeScores:
        """The edge pass over RGB uint8 (B, S, S, 3)."""
        ...


class ServerModel(Protocol):
    """The server model, as far as an edge knows it."""

    @property
    def name(self) -> str: ...

    @property
    def grid(self) -> UnitGrid: ...

    @property
    def can_compute(self) -> bool:
        """Whether the weights are here; otherwise this is an outline."""
        ...

    @property
    def is_outline(self) -> bool:
        """Whether there are no weights at all, not even a patch embedding."""
        ...

    def embedding(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The patch embedding of raw pixels, including normalisation: matrix (p * p * 3, D) and bias (D,).

        The rows of the matrix are in the byte order of a patch: (y, x, channel) of RGB 0..255.
        """
        ...


def is_imagenet(model: EdgeModel) -> bool:
    """Whether the classes are ImageNet's."""
    return len(model.labels) == 1000 and labels_fingerprint(model.labels) == IMAGENET_FINGERPRINT


def own_bits(edge: EdgeModel) -> float | None:
    """Threshold of the min-entropy gate for taught classes, in bits; None for the model's own classes."""
    return None if edge.head is None else edge.head.card.gate_bits
