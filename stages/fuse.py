"""Fuse: the edge answer and the server answer become one verdict, at no uplink cost."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import (
    WHOLE,
    Answer,
    Answered,
    EdgeOnly,
    Evidence,
    Metered,
    Origin,
    PendingVerdict,
    Reply,
    Scored,
    Selected,
    Sent,
    Units,
    Verdict,
)

NO_UNITS: Units = np.empty(0, np.intp)
_SMALLEST = 1e-9  # probability


def spread(reply: Reply, classes: int) -> NDArray[np.float32]:
    """Log-probabilities (classes,) from a reply's few: what they leave is shared evenly by the other classes."""
    named = np.array(reply.class_ids)
    log_probs = np.array(reply.log_probs, np.float32)
    rest = max(1.0 - float(np.exp(log_probs).sum()), _SMALLEST)
    full = np.full(classes, np.log(rest / max(classes - len(named), 1)), np.float32)
    full[named] = log_probs
    return full


def answer_of(log_scores: NDArray[np.float32]) -> Answer:
    """The answer of unnormalised log-scores (C,)."""
    shifted = log_scores - log_scores.max()
    log_probs = (shifted - np.log(np.exp(shifted).sum())).astype(np.float32)
    best = int(log_probs.argmax())
    return Answer(best, float(np.exp(log_probs[best])), log_probs)


def fuse(edge: Answer, server: Answer, weight: float) -> Answer:
    """Weighted sum of log-probabilities: the edge's count once, the server's `weight` times. Weight 0 is the edge."""
    return edge if weight == 0 else answer_of(edge.log_probs + weight * server.log_probs)


def weight_of_share(weights: Mapping[float, float], share: float) -> float:
    """Weight of the server's answer to a share of the units, on the line between the shares given."""
    shares = sorted(weights)
    return float(np.interp(share, shares, [weights[known] for known in shares]))


class Fuse:
    def __init__(self, replace: bool, weights: dict[float, float] | None, units: int) -> None:
        """`replace`: take the server's answer as it is; else `weights` by share of the `units` of the server's grid;
        without them, the weight that the evidence's operating point was measured to deserve."""
        self._replace = replace
        self._weights = weights
        self._units = units

    def weight(self, evidence: Evidence, units: int) -> float:
        """Weight of the server's answer to `evidence`, of which it used `units`."""
        if self._weights is None:
            if evidence.reference_units and units < len(evidence.units) + evidence.reference_units:
                return evidence.standalone_weight
            # Parts that were lost take their share of the weight along.
            return evidence.weight * min(1.0, units / (len(evidence.units) + evidence.reference_units))
        return weight_of_share(self._weights, units / self._units)

    async def process(self, work: Answered | EdgeOnly | PendingVerdict) -> Verdict:
        return self.decide(work)

    def decide(self, outcome: Answered | EdgeOnly | PendingVerdict) -> Verdict:
        """The verdict on a frame, however far it came. Where its scene is remembered, what is said of it at once; the
        last word is `Smoother`'s."""
        # From the last value back to the first: each holds the one that it was made from.
        answered = outcome if isinstance(outcome, Answered) else None
        work = (
            outcome.work
            if isinstance(outcome, EdgeOnly)
            else outcome.sent
            if isinstance(outcome, PendingVerdict)
            else outcome
        )
        sent = work.sent if isinstance(work, Answered) else work if isinstance(work, Sent) else None
        evidence = sent.evidence if sent else work if isinstance(work, Evidence) else None
        selected = evidence.selected if evidence else work if isinstance(work, Selected) else None
        metered = selected.metered if selected else work if isinstance(work, Metered) else None
        scored = metered.scored if metered else work if isinstance(work, Scored) else None

        seen = metered.provisional if metered else None
        edge = scored.answer if scored else None
        answer: Answer | None = seen.answer if seen else edge
        origin: Origin = "fused" if seen and seen.estimate.server_weight > 0 else "edge"
        server: Answer | None = None
        weight = 0.0
        if answered and edge:
            server = answer_of(spread(answered.reply, len(edge.log_probs)))
            weight = self.weight(answered.sent.evidence, answered.reply.units)
            if self._replace:
                answer, origin = server, "server"
            elif weight > 0 and not seen:
                answer, origin = fuse(edge, server, weight), "fused"
        return Verdict(
            frame=work.frame,
            answer=answer,
            origin=origin,
            drop=outcome.reason if isinstance(outcome, EdgeOnly) else None,
            edge=edge,
            server=server,
            units=sent.evidence.units if sent else NO_UNITS,
            point=sent.evidence.point if sent else None,
            sent_s=sent.sent_s if sent else None,
            wire_bits=sent.evidence.wire_bits if sent else 0,
            allowance_bits=metered.allowance_bits if metered else None,
            window_bits=sent.window_bits if sent else metered.window_bits if metered else None,
            budget_bits=metered.budget_bits if metered else None,
            latency_ms={
                "capture": work.frame.capture_ms,
                "score": scored.score_ms if scored else None,
                "select": selected.select_ms if selected else None,
                "encode": evidence.encode_ms if evidence else None,
                "ship": answered.ship_ms if answered else None,
                "server": answered.reply.server_ms if answered else None,
                "total": (time.monotonic_ns() - work.frame.capture_ns) / 1e6,
            },
            scored=scored,
            message=sent.evidence.message if sent else None,
            reply=answered.reply if answered else None,
            asked_s=metered.asked_s if metered else None,
            provisional=seen,
            weight=weight,
            server_seq=seen.estimate.server_seq if seen else None,
            pending=isinstance(outcome, PendingVerdict),
            crop=sent.evidence.crop if sent else scored.edge_view.crop if scored else WHOLE,
        )
