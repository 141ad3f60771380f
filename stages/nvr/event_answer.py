"""The answer for an event: the mean of the log-probabilities of its frames, over the classes possible for its label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.answers import Answer
from sagelink.pipeline.types import Verdict

ClassesByLabel = Mapping[str, Sequence[str]]


class EventAnswer:
    """Of one event. Frames that were scored with other classes than the newest one do not count."""

    def __init__(self, possible: Sequence[str] | None) -> None:
        """`possible`: names of the classes that are possible; None: all."""
        self._possible = None if possible is None else tuple(possible)
        self._labels: tuple[str, ...] = ()
        self._sum: NDArray[np.float64] = np.zeros(0)
        self._frames = 0

    def add(self, verdict: Verdict, own: tuple[str, ...]) -> tuple[str, float] | None:
        """Takes a verdict with an answer. Returns label and probability of the event up to now; None if no class of
        the verdict is possible. `own`: names of the model's own classes."""
        assert verdict.answer is not None
        labels, scores = verdict.labels(own), verdict.answer.log_probs.astype(np.float64)
        if labels != self._labels:
            self._labels, self._sum, self._frames = labels, np.zeros_like(scores), 0
        self._sum += scores
        self._frames += 1
        ids = _numbers(labels, self._possible)
        if not len(ids):
            return None
        answer = Answer.from_log_scores((self._sum[ids] / self._frames).astype(np.float32))
        return labels[int(ids[answer.class_id])], answer.prob


@lru_cache(64)
def _numbers(labels: tuple[str, ...], possible: tuple[str, ...] | None) -> NDArray[np.intp]:
    return np.array([number for number, name in enumerate(labels) if possible is None or name in possible], np.intp)
