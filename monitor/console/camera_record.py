"""What a console knows of one camera: only what travels anyway. Pure: times are arguments, memory is bounded."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sagelink.monitor.console.camera_digest import CameraDigest
from sagelink.monitor.console.events_seen import CameraEventLog, shown
from sagelink.pipeline.quantities import format_rate
from sagelink.pipeline.types import Reply
from sagelink.transport.evidence_claim import EvidenceClaim
from sagelink.transport.link import CameraInfo, Message

_RATE_S = 10.0  # time constant of the uplink rate
_MAX_PENDING = 16
_MAX_ANSWERS = 40
_MINUTES = 180
_NO_REPLY_S = 3.0  # evidence that gets no answer for longer shows that no server answers
_DIGEST_S = 180.0  # a digest that is older says nothing about now


@dataclass(frozen=True, slots=True)
class SeenAnswer:
    """One evidence message and the server's answer to it."""

    wall_s: float
    seq: int
    label: str
    prob: float
    refusal: str | None
    edge: str  # label of the edge's own answer; empty where the message had none
    units: int
    bits: int
    answer_ms: float  # from the evidence to the answer, at the broker
    server_ms: float
    queue_ms: float


@dataclass(frozen=True, slots=True)
class _Pending:
    arrived_s: float
    claim: EvidenceClaim
    bits: int


@dataclass(slots=True)
class CameraRecord:
    """One camera. `version` changes with everything that a page shows."""

    address: str
    info: CameraInfo | None = None
    is_online: bool = False
    reason: str | None = None  # why it is offline
    since_s: float | None = None  # since when it is online or offline; None: before anybody observed it
    seen_s: float | None = None
    label: str = ""
    prob: float = 0.0
    answered: int = 0
    refused: int = 0
    late: int = 0
    total_bits: int = 0
    last_bits: int = 0  # of the last message
    month_bits: int = 0
    version: int = 0
    digest: CameraDigest | None = None
    digest_s: float = -math.inf
    settings: Mapping[str, Any] | None = None  # that hold at the camera, as it said last
    events: CameraEventLog = field(default_factory=CameraEventLog)
    message: Message | None = None  # the last one as it came, for the picture
    message_wall_s: float = 0.0
    answers: deque[SeenAnswer] = field(default_factory=lambda: deque(maxlen=_MAX_ANSWERS))
    minutes: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_MINUTES))  # minute since 1970, bits
    _pending: OrderedDict[int, _Pending] = field(default_factory=OrderedDict)
    _unanswered_s: float | None = None  # arrival of the first message since the last answer
    _rate_bps: float = 0.0
    _rate_s: float = -math.inf
    _month: int = 0

    def restore_month(self, month: int, bits: int) -> None:
        """Bits of this month that an earlier console observed."""
        self._month, self.month_bits = month, bits

    def charge(self, bits: int, now_s: float, wall_s: float) -> None:
        """Counts uplink bits."""
        self._rate_bps = self.rate_bps(now_s) + bits / _RATE_S
        self._rate_s = self.seen_s = now_s
        self.total_bits += bits
        self.last_bits = bits
        minute = int(wall_s // 60)
        if self.minutes and self.minutes[-1][0] == minute:
            minute, before = self.minutes.pop()
            bits_of_minute = before + bits
        else:
            bits_of_minute = bits
        self.minutes.append((minute, bits_of_minute))
        month = month_of(wall_s)
        if month != self._month:
            self._month, self.month_bits = month, 0
        self.month_bits += bits
        self.version += 1

    def rate_bps(self, now_s: float) -> float:
        """Uplink rate of the last seconds."""
        return self._rate_bps * math.exp(-max(0.0, now_s - self._rate_s) / _RATE_S)

    def keep_message(self, message: Message, claim: EvidenceClaim, bits: int, wall_s: float) -> None:
        """Keeps evidence until its answer comes, and for the picture."""
        self.message, self.message_wall_s = message, wall_s
        self._pending[claim.seq] = _Pending(message.arrived_s, claim, bits)
        if len(self._pending) > _MAX_PENDING:
            self._pending.popitem(last=False)
            self.late += 1
        if self._unanswered_s is None:
            self._unanswered_s = message.arrived_s

    def message_bytes(self) -> int:
        return len(self.message.data) if self.message else 0

    def claim_of(self, seq: int) -> EvidenceClaim | None:
        """What the message said that waits for this answer."""
        pending = self._pending.get(seq)
        return pending.claim if pending else None

    def take_reply(self, reply: Reply, label: str, edge: str, now_s: float, wall_s: float) -> SeenAnswer | None:
        """Takes the server's answer. None where its message was not observed, or has an answer."""
        pending = self._pending.pop(reply.seq, None)
        if pending is None:
            return None
        self._unanswered_s = None
        self.refused += reply.refusal is not None
        self.answered += reply.refusal is None
        prob = math.exp(reply.log_probs[0]) if reply.log_probs else 0.0
        if reply.refusal is None:
            self.label, self.prob = label, prob
        answer = SeenAnswer(
            wall_s=wall_s,
            seq=reply.seq,
            label=label,
            prob=prob,
            refusal=None if reply.refusal is None else shown(reply.refusal),
            edge=edge,
            units=reply.units or pending.claim.units,
            bits=pending.bits,
            answer_ms=(now_s - pending.arrived_s) * 1e3,
            server_ms=reply.server_ms,
            queue_ms=reply.queue_ms,
        )
        self.answers.append(answer)
        self.version += 1
        return answer

    def sweep(self, now_s: float) -> None:
        """Gives up messages whose answer is too late."""
        deadline_s = self.info.deadline_s if self.info else _NO_REPLY_S
        while self._pending and next(iter(self._pending.values())).arrived_s < now_s - max(deadline_s, _NO_REPLY_S):
            self._pending.popitem(last=False)
            self.late += 1
            self.version += 1

    def state(self, now_s: float) -> tuple[str, str]:
        """`running`, `stalled` or `offline`, and why."""
        if not self.is_online:
            return "offline", self.reason or ""
        digest = self.current_digest(now_s)
        if digest is not None and digest.camera != "running":
            return "stalled", f"no picture: {digest.camera}"
        if self._unanswered_s is not None and now_s - self._unanswered_s > self._patience_s():
            return "stalled", "no server answers"
        return "running", ""

    def _patience_s(self) -> float:
        return max(_NO_REPLY_S, 3 * self.info.deadline_s if self.info else 0.0)

    def take_digest(self, digest: CameraDigest, now_s: float) -> None:
        self.digest, self.digest_s = digest, now_s
        budget = {"rate_bps": digest.rate_bps, "window_s": digest.window_s, "uplink": format_rate(digest.rate_bps)}
        self.settings = budget | dict(digest.settings)

    def current_digest(self, now_s: float) -> CameraDigest | None:
        return self.digest if now_s - self.digest_s < _DIGEST_S else None

    def answered_share(self) -> float | None:
        total = self.answered + self.refused + self.late
        return self.answered / total if total else None

    def latencies(self) -> Mapping[str, dict[str, float] | None]:
        """Median and 95th percentile in ms of the last answers, by part."""
        answers = [answer for answer in self.answers if answer.refusal is None]
        parts = {
            "queue": [answer.queue_ms for answer in answers],
            "model": [answer.server_ms - answer.queue_ms for answer in answers],
            "network": [max(0.0, answer.answer_ms - answer.server_ms) for answer in answers],
            "answer": [answer.answer_ms for answer in answers],
        }
        return {part: _percentiles(values) for part, values in parts.items()}

    def answers_as_values(self) -> list[dict[str, Any]]:
        """Newest first, as plain JSON values."""
        return [{key: getattr(answer, key) for key in SeenAnswer.__slots__} for answer in reversed(self.answers)]


def month_of(wall_s: float) -> int:
    """A number of the calendar month (UTC)."""
    parts = time.gmtime(wall_s)
    return parts.tm_year * 12 + parts.tm_mon


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in _SHARES.items()}


_SHARES = {"p50": 0.5, "p95": 0.95}
