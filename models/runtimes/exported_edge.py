"""Runs an exported edge pass (`models.runtimes.edge_export`) in a compiled runtime. Needs no PyTorch.

A pass computes one picture after the other: on a CPU a batch saves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sagelink.models.heads.linear_classifier import LinearClassifier
from sagelink.models.model_contract import EdgeScores
from sagelink.models.runtimes.compilers import Session
from sagelink.pipeline.types import Pixels

INPUTS, OUTPUTS = ("pictures", "weight", "bias"), ("embeddings", "class_token", "importance", "read")


def run_exported(session: Session, pictures: Pixels, classifier: LinearClassifier) -> EdgeScores:
    """`pictures`: RGB uint8 (B, S, S, 3). `classifier`: reads the features for which the pass was exported."""
    found: Sequence[Sequence[np.ndarray]] = [
        session(dict(zip(INPUTS, (picture[None], classifier.weight, classifier.bias), strict=True)))
        for picture in pictures
    ]
    embeddings, class_token, importance, read = (np.concatenate(values) for values in zip(*found, strict=True))
    return EdgeScores(classifier.logits(read), importance, embeddings, class_token, read)
