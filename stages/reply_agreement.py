"""Learns from a camera's replies how far the answers of its scene can be trusted: replies in, a scale and doubts out.

The server's answer to a sent frame is compared with the answer that the scene had before it. No labels are needed. Two
things are learned:

- `sharpness`: a factor on the log-scores of the scene. With it, the probability of an answer is the share of replies
  that agree with such an answer. The log loss is convex in the factor, so the regret of gradient steps that shrink with
  the sum of squared gradients grows as the square root of the number of replies (Zinkevich 2003; Duchi et al. 2011).
- `change_doubt`: how often the server may contradict an answer of this probability after the picture has changed. It is
  the upper confidence bound of the share (KL-UCB, Garivier & Cappé 2011), as in HI-LCB (arXiv:2508.08985): what has been
  asked rarely is asked again, and the number of needless questions grows with the logarithm of the replies.

Without replies nothing changes. Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

_BINS = (0.5, 0.7, 0.85, 0.95)  # probabilities that separate the bins of `change_doubt`
_MEMORY = 300.0  # replies: older ones fade
_STEP = 0.5  # of a gradient step, before it is divided by the root of the sum of squared gradients
_MAX_GRADIENT = 5.0
_RANGE = (0.25, 4.0)  # of the sharpness
_STEPS = 20  # of the bisection


@dataclass(frozen=True, slots=True)
class Counts:
    """Replies to one kind of answer, with fading weights."""

    replies: float = 0.0
    contradicted: float = 0.0


@dataclass(frozen=True, slots=True)
class LearnedTrust:
    """What the replies to a camera have taught; the initial values hold without any."""

    sharpness: float = 1.0
    squared_gradients: float = 1.0
    replies: int = 0
    agreed: int = 0  # of the replies
    changed: tuple[Counts, ...] = field(default=(Counts(),) * (len(_BINS) + 1))  # by bin of the probability

    def change_doubt(self, prob: float) -> float:
        """Upper confidence bound of the share of replies that contradict an answer of this probability, after the
        picture has changed."""
        counts = self.changed[_bin(prob)]
        return _upper_bound(counts.contradicted, counts.replies, math.log(2 + self.replies))

    def after(self, scores: NDArray[np.float32], server_class: int, weight: float, changed: bool) -> LearnedTrust:
        """After one more reply. `scores`: (C,) log-scores of the answer before it, without the sharpness. `weight`: of
        the server's answer; one of weak evidence teaches less. `changed`: the picture had changed since the last sent
        frame."""
        share = min(1.0, max(0.0, weight))
        log_probs = _log_softmax(self.sharpness * scores.astype(np.float64))
        probs = np.exp(log_probs)
        gradient = share * float(probs @ scores - scores[server_class])
        gradient = max(-_MAX_GRADIENT, min(_MAX_GRADIENT, gradient))
        squared = self.squared_gradients + gradient**2
        sharpness = min(max(self.sharpness - _STEP * gradient / math.sqrt(squared), _RANGE[0]), _RANGE[1])
        agrees = int(scores.argmax()) == server_class
        counts = list(self.changed)
        if changed:
            place = _bin(float(probs.max()))
            kept = 1 - 1 / _MEMORY
            old = counts[place]
            counts[place] = Counts(kept * old.replies + share, kept * old.contradicted + share * (not agrees))
        return replace(
            self,
            sharpness=sharpness,
            squared_gradients=squared,
            replies=self.replies + 1,
            agreed=self.agreed + agrees,
            changed=tuple(counts),
        )


def _bin(prob: float) -> int:
    return sum(prob >= limit for limit in _BINS)


def _log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = scores - scores.max()
    return np.asarray(shifted - math.log(float(np.exp(shifted).sum())))


def _upper_bound(events: float, trials: float, confidence: float) -> float:
    """The largest share q with trials x KL(events / trials, q) <= confidence; 1 without trials."""
    if trials <= 0:
        return 1.0
    share = min(1.0, events / trials)
    low, high = share, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if trials * _divergence(share, middle) <= confidence else (low, middle)
    return low


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of two Bernoulli distributions; q is above p."""
    first = p * math.log(p / q) if p > 0 else 0.0
    return first + ((1 - p) * math.log((1 - p) / max(1 - q, 1e-12)) if p < 1 else 0.0)
