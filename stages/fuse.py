"""Fuse: combines the edge answer and the server answer of a frame into its verdict, at no uplink cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.answers import Answer, HeadAnswer, Origin
from sagelink.pipeline.types import (
    WHOLE,
    Answered,
    EdgeOnly,
    Evidence,
    PendingVerdict,
    TopClasses,
    Trace,
    Units,
    Verdict,
)

NO_UNITS: Units = np.empty(0, np.intp)
_SMALLEST = 1e-9  # probability
_NO_CLASSES: TopClasses = ((), ())


def spread(top: TopClasses, classes: int) -> NDArray[np.float32]:
    """Log-probabilities (C,) from the few of a reply; the other classes share the remaining probability equally."""
    named = np.array(top[0])
    log_probs = np.array(top[1], np.float32)
    rest = max(1.0 - float(np.exp(log_probs).sum()), _SMALLEST)
    full = np.full(classes, np.log(rest / max(classes - len(named), 1)), np.float32)
    full[named] = log_probs
    return full


def fuse(edge: Answer, server: Answer, weight: float, overlap: float = 0.0) -> Answer:
    """Weighted sum of log-probabilities: weight 1 for the edge, `weight` for the server. Weight 0 returns `edge`.

    `overlap`: how alike the errors of both are. With 0 the sum stands, as of independent answers; with 1 it is divided
    by the sum of the weights: two answers with the same errors are no surer than one. The class does not depend on it.
    """
    if weight == 0:
        return edge
    scores = (edge.log_probs + weight * server.log_probs) / (1 + overlap * weight)
    return Answer.from_log_scores(np.asarray(scores, np.float32))


def weight_of_share(weights: Mapping[float, float], share: float) -> float:
    """Weight of the server's answer to a share of the units (0..1): linear interpolation between the given shares."""
    shares = sorted(weights)
    return float(np.interp(share, shares, [weights[key] for key in shares]))


class Fuse:
    def __init__(self, replace: bool, weights: dict[float, float] | None, units: int) -> None:
        """`replace`: the server's answer replaces the edge's. `weights`: weight of the server's answer, by the share of
        the grid's `units` that it used; without it, the measured weight of the evidence's operating point counts."""
        self._replace = replace
        self._weights = weights
        self._units = units

    def weight(self, evidence: Evidence, units: int) -> float:
        """Weight of the server's answer to `evidence`; `units` is the number of units that it used."""
        if self._weights is None:
            # Lost parts reduce the weight in proportion.
            return evidence.weight * min(1.0, units / len(evidence.units))
        return weight_of_share(self._weights, units / self._units)

    async def process(self, work: Answered | EdgeOnly | PendingVerdict) -> Verdict:
        return self.decide(work)

    def decide(self, outcome: Answered | EdgeOnly | PendingVerdict) -> Verdict:
        """The verdict on a frame, at whatever step it ended.

        For a tracked scene this is the provisional verdict; `Smoother` gives the final one.
        """
        trace = outcome.trace()
        scored, metered, sent, answered = trace.scored, trace.metered, trace.sent, trace.answered
        provisional = metered.provisional if metered else None
        answer, server, origin, weight = self._answer(trace)
        return Verdict(
            frame=trace.frame,
            answer=answer,
            origin=origin,
            drop=outcome.reason if isinstance(outcome, EdgeOnly) else None,
            edge=scored.answer if scored else None,
            server=server,
            units=sent.evidence.units if sent else NO_UNITS,
            point=sent.evidence.point if sent else None,
            sent_s=sent.sent_s if sent else None,
            wire_bits=sent.evidence.wire_bits if sent else 0,
            allowance_bits=metered.allowance_bits if metered else None,
            window_bits=sent.window_bits if sent else metered.window_bits if metered else None,
            budget_bits=metered.budget_bits if metered else None,
            bound_bits=metered.bound_bits if metered else None,
            bit_price=metered.bit_price if metered else 0.0,
            latency_ms=_latencies(trace),
            scored=scored,
            message=sent.evidence.message if sent else None,
            reply=answered.reply if answered else None,
            asked_s=metered.asked_s if metered else None,
            provisional=provisional,
            weight=weight,
            server_seq=provisional.estimate.server_seq if provisional else None,
            pending=isinstance(outcome, PendingVerdict),
            crop=sent.evidence.crop if sent else scored.edge_view.crop if scored else WHOLE,
            further=self._further(trace),
        )

    def _further(self, trace: Trace) -> tuple[HeadAnswer, ...]:
        """The answers by the further heads: of this frame alone, also where scenes are tracked."""
        if trace.scored is None or trace.answered is None:
            return trace.scored.further if trace.scored else ()
        evidence, reply = trace.answered.sent.evidence, trace.answered.reply
        found = dict(zip(evidence.further, reply.further, strict=False))
        if trace.scored.taught is not None:  # the same head may answer under a further name
            found[trace.scored.taught.head_id] = reply.top
        return tuple(
            self._with_server(answer, found.get(answer.taught.head_id, _NO_CLASSES), evidence, reply.units)
            for answer in trace.scored.further
        )

    def _with_server(self, answer: HeadAnswer, top: TopClasses, evidence: Evidence, units: int) -> HeadAnswer:
        """Fuses the server's answer by a further head, if there is one."""
        count = len(answer.taught.labels)
        if not top[0] or max(top[0]) >= count:
            return answer
        server = Answer.from_log_scores(spread(top, count))
        if self._replace:
            return replace(answer, answer=server, server=server, origin="server")
        if self._weights is not None:
            weight = weight_of_share(self._weights, units / self._units)
        else:  # by the bytes that evidence with as many units would have
            size = len(evidence.message) * units / max(len(evidence.units), 1)
            weight = float(answer.taught.fusion_weight(np.array([max(size, 1.0)]))[0])
        if weight == 0:
            return replace(answer, server=server)
        fused = fuse(answer.edge, server, weight, answer.taught.overlap)
        return replace(answer, answer=fused, server=server, origin="fused")

    def _answer(self, trace: Trace) -> tuple[Answer | None, Answer | None, Origin, float]:
        """The verdict's answer, the server's answer, the origin, and the weight of the server's answer."""
        if trace.scored is None:
            return None, None, "edge", 0.0
        edge = trace.scored.answer
        provisional = trace.metered.provisional if trace.metered else None
        answer = provisional.verdict if provisional else edge
        origin: Origin = "fused" if provisional and provisional.estimate.server_weight > 0 else "edge"
        if trace.answered is None:
            return answer, None, origin, 0.0
        reply = trace.answered.reply
        server = Answer.from_log_scores(spread(reply.top, len(edge.log_probs)))
        weight = self.weight(trace.answered.sent.evidence, reply.units)
        if self._replace:
            answer, origin = server, "server"
        elif weight > 0 and not provisional:
            overlap = trace.scored.taught.overlap if trace.scored.taught else 0.0
            answer, origin = fuse(edge, server, weight, overlap), "fused"
        return answer, server, origin, weight


def _latencies(trace: Trace) -> dict[str, float | None]:
    """Milliseconds per stage; None for a stage that the frame did not reach. `total` is from the capture until now."""
    return {
        "capture": trace.frame.capture_ms,
        "score": trace.scored.score_ms if trace.scored else None,
        "select": trace.selected.select_ms if trace.selected else None,
        "encode": trace.evidence.encode_ms if trace.evidence else None,
        "ship": trace.answered.ship_ms if trace.answered else None,
        "server": trace.answered.reply.server_ms if trace.answered else None,
        "total": (time.monotonic_ns() - trace.frame.capture_ns) / 1e6,
    }
