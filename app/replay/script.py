"""The script of an exact replay: takes a recording, and gives the graph the decisions of the outside world.

These are the times at which the budget was asked and charged, the order of frames, the server's replies, and the
reasons for lost frames. Everything that depends on pixels and settings is computed again.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from sagelink.pipeline.budget.pacing import PricedBound
from sagelink.pipeline.budget.quota import Moment
from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import LedgerReplay
from sagelink.pipeline.channel import Channel
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Evidence, Frame, PendingVerdict, Scored
from sagelink.pipeline.urls import is_webrtc

if TYPE_CHECKING:
    from sagelink.pipeline.budget.camera_accounts import CameraAccount
    from sagelink.stages.recording_reader import Place, RecordedCamera, RecordingReader, Row

# Drop reasons that depend on the outside world: they are taken from the recording.
_OUTSIDE_REASONS = {Drop.LINK, Drop.LATE, Drop.REFUSED, Drop.STOPPED, Drop.ERROR}


class Script:
    """Replaces the outside world in an exact replay.

    It is also a stage, before the budget is asked and before it is charged: a frame that was lost there is lost again,
    and the connection's own entries in the ledger are made at their recorded times.
    """

    budget: UplinkBudget  # of the replay; `Run` sets it, and the accounts by camera
    accounts: Mapping[str, CameraAccount]

    def __init__(self, recording: RecordingReader, captures: Sequence[RecordedCamera], server: str = "") -> None:
        """`server`: its address in the recorded run; empty: the same process. Raises UsageError when a run with that
        server cannot be replayed exactly."""
        self.frames = _RecordedFrames(recording.rows, captures)
        self.ask_clock = _RecordedClock(recording.rows, "asked_s")
        self.charge_clock = _RecordedClock(recording.rows, "sent_s")
        self.drops = _RecordedDrops(recording.rows)
        self.link = RecordedLink(recording.rows, *_message_costs(recording, server))
        self._ledger = LedgerReplay(entry for row in recording.rows.values() for entry in row.get("ledger", []))
        self._rows = recording.rows
        self._recording = recording
        self._bounds: list[_RecordedBound] = []

    def bound(self, limit_bits: int | None) -> PricedBound:
        """Replaces the quotas and the pace of a budget; `limit_bits`: the least of them."""
        self._bounds.append(_RecordedBound(limit_bits))
        return self._bounds[-1]

    def received(self, frame: Frame) -> list[int]:
        """Sequence numbers of the frames whose answers arrived since the camera's previous frame."""
        received: list[int] = _row(self._rows, frame).get("heard", [])
        return received

    def further(self, scored: Scored) -> tuple[bytes, ...]:
        """Ids of the further heads that the frame's message named: a server may have lacked others."""
        from sagelink.transport.evidence_claim import peek

        message = self._recording.message((scored.frame.camera, scored.frame.seq))
        claim = None if message is None else peek(message)
        return claim.further if claim else ()

    async def process(self, item: Scored | Evidence) -> Scored | Evidence | EdgeOnly:
        row = _row(self._rows, item.frame)
        passed_s = row["asked_s" if isinstance(item, Scored) else "sent_s"]
        reason = _drop(row)
        if isinstance(item, Scored):
            for bound in self._bounds:
                bound.bits, bound.bit_price = row.get("bound_bits"), row.get("bit_price", 0.0)
        elif passed_s is None and reason is Drop.BUDGET:
            return EdgeOnly(item, Drop.BUDGET)  # the ledger on disk could not cover the message
        if passed_s is not None:
            self._ledger.enter(self.budget, self.accounts, passed_s)
        return item if passed_s is not None or reason not in _OUTSIDE_REASONS else EdgeOnly(item, reason)


def _message_costs(recording: RecordingReader, server: str) -> tuple[Callable[[int], int], int]:
    """Returns a function from message bytes to wire bits, and the longest message of the link.

    Raises UsageError when the recording does not determine the wire cost of a message, or lacks the connection's
    own entries in the ledger."""
    from sagelink.transport.envelope import MAX_MESSAGE_BYTES
    from sagelink.transport.webrtc.address import parse_url
    from sagelink.transport.webrtc.wire_cost import MAX_SCTP_MESSAGE_BYTES, WebRtcCostModel

    if not server:
        return lambda message_bytes: 8 * message_bytes, MAX_MESSAGE_BYTES
    if not is_webrtc(server):
        obstacle = f"a run over {server}: the wire cost of a message depends on the broker, which is not recorded"
    elif any("ledger" not in row for row in recording.rows.values()):
        obstacle = "an older version, which did not record the connection's own entries in the ledger"
    else:
        tls, host, _ = parse_url(server, "ship.server")
        return WebRtcCostModel(ipv6=":" in host, tls=tls).message_bits, MAX_SCTP_MESSAGE_BYTES
    raise UsageError(f"recording {str(recording.folder)!r} is from {obstacle}; accepted: --uplink or --set, to compare")


def _row(rows: Mapping[Place, Row], frame: Frame) -> Row:
    return rows[frame.camera, frame.seq]


def _drop(row: Row) -> Drop | None:
    return None if row["verdict"]["drop"] is None else Drop(row["verdict"]["drop"])


class _RecordedBound:
    """A PricedBound that grants what the quotas and the ledger granted to the frame in the recorded run, at the price
    of that run."""

    def __init__(self, limit_bits: int | None) -> None:
        self.limit_bits = limit_bits
        self.bits: int | None = None  # of the frame that is decided now
        self.bit_price = 0.0

    def allowance(self, at: Moment) -> int | None:
        return self.bits

    def add(self, at: Moment, bits: int) -> None:
        """Counts nothing: the recording holds what was left for each frame."""

    def set_aside(self, bits: int) -> None:
        """Takes nothing out."""

    def price(self, at: Moment) -> float:
        return self.bit_price


class _RecordedClock:
    """A BudgetClock that returns the recorded times."""

    def __init__(self, rows: Mapping[Place, Row], key: str) -> None:
        self._rows = rows
        self._key = key

    def now_s(self, frame: Frame) -> float:
        row = _row(self._rows, frame)
        return float(row["asked_s"] if row[self._key] is None else row[self._key])


class _RecordedDrops:
    """A stage before fusion: gives a message without a reply the drop reason that the recording holds."""

    def __init__(self, rows: Mapping[Place, Row]) -> None:
        self._rows = rows

    async def process(self, outcome: Answered | EdgeOnly | PendingVerdict) -> Answered | EdgeOnly | PendingVerdict:
        reason = _drop(_row(self._rows, outcome.frame))
        if isinstance(outcome, EdgeOnly) and outcome.reason is Drop.LINK and reason in _OUTSIDE_REASONS:
            return EdgeOnly(outcome.work, reason)
        return outcome


class _RecordedFrames:
    """All frames in the order in which they asked the budget; a frame that was never scored comes as EdgeOnly, with its
    recorded drop reason."""

    def __init__(self, rows: Mapping[Place, Row], captures: Sequence[RecordedCamera]) -> None:
        self._rows = rows
        self._captures = captures

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for capture in self._captures:
            capture.close()

    async def __aiter__(self) -> AsyncIterator[Frame | EdgeOnly]:
        from sagelink.stages.capture import MergedCaptures

        async with aclosing(aiter(MergedCaptures(self._captures, self._asked_s))) as frames:
            async for frame in frames:
                row = _row(self._rows, frame)
                yield frame if row["verdict"]["edge"] is not None else EdgeOnly(frame, _drop(row) or Drop.ERROR)

    def _asked_s(self, frame: Frame) -> float:
        """When the frame asked the budget: before all others if it was never scored, after them if it never asked."""
        row = _row(self._rows, frame)
        if row["verdict"]["edge"] is None:
            return -math.inf
        return math.inf if row["asked_s"] is None else float(row["asked_s"])


class RecordedLink:
    """An EdgeLink whose server is the recording: it returns the recorded replies and sends nothing."""

    def __init__(self, rows: Mapping[Place, Row], message_bits: Callable[[int], int], max_message_bytes: int) -> None:
        """`message_bits`: from message bytes to bits on the wire, framing included."""
        self._rows = rows
        self._max_message_bytes = max_message_bytes
        self._message_bits = message_bits
        self._down: Channel[tuple[str, bytes]] = Channel("downlink", capacity=64)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._down.close()

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        return self._message_bits(message_bytes)

    def max_message_bytes(self, camera: str) -> int:
        return self._max_message_bytes

    def refusal(self) -> str | None:
        return None

    def head_refusal(self, fingerprint: bytes) -> str | None:
        return None

    async def ready(self) -> None:
        """Returns at once."""

    async def send(self, camera: str, message: bytes) -> str | None:
        from sagelink.transport.evidence_claim import peek

        claim = peek(message)
        assert claim is not None, "the edge sent a message that is no evidence"
        reply = self._rows[camera, claim.seq]["reply"]
        if reply is None:
            return "no reply in the recording"
        await self._down.put((camera, bytes.fromhex(reply)))
        return None

    def replies(self) -> AsyncIterator[tuple[str, bytes]]:
        return aiter(self._down)
