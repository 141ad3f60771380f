"""The script of an exact replay: what the outside world decided in a recorded run.

It gives the graph the recorded times of asking and charging, the order of frames, the server's replies, and the reasons
for frames that were lost on the way. Everything that depends on pixels and settings is computed anew.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.channel import Channel
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.overhead import OverheadReplay
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Evidence, Frame, PendingVerdict, Scored
from sagelink.pipeline.urls import is_webrtc

if TYPE_CHECKING:
    from sagelink.stages.recording_reader import Place, RecordedCamera, RecordingReader, Row

# Reasons that a run on its own frames cannot come to: they are taken from the recording.
_FROM_OUTSIDE = {Drop.LINK, Drop.LATE, Drop.REFUSED, Drop.STOPPED, Drop.ERROR}


class Script:
    """What the outside world did in a recorded run. Itself a stage: a frame that went no further goes no further."""

    budget: UplinkBudget  # of the run, which charges tolls to it

    def __init__(self, recording: RecordingReader, captures: Sequence[RecordedCamera], server: str = "") -> None:
        """`server`: where it was; empty: in the same process. Raises UsageError where that cannot be repeated."""
        self.frames = _Frames(recording.rows, captures)
        self.asked = _RecordedClock(recording.rows, "asked_s")
        self.charged = _RecordedClock(recording.rows, "sent_s")
        self.outcomes = _Outcomes(recording.rows)
        self.link = RecordedLink(recording.rows, _message_bits(recording, server))
        self._overhead = OverheadReplay(
            charge_overhead for row in recording.rows.values() for charge_overhead in row.get("tolls", [])
        )
        self._rows = recording.rows

    def heard(self, frame: Frame) -> list[int]:
        """The frames whose answers were in since the camera's frame before."""
        heard: list[int] = _row(self._rows, frame).get("heard", [])
        return heard

    async def process(self, item: Scored | Evidence) -> Scored | Evidence | EdgeOnly:
        row = _row(self._rows, item.frame)
        went_on_s = row["asked_s" if isinstance(item, Scored) else "sent_s"]
        reason = _drop(row)
        if went_on_s is not None:
            self._overhead.charge(self.budget, went_on_s)
        return item if went_on_s is not None or reason not in _FROM_OUTSIDE else EdgeOnly(item, reason)


def _message_bits(recording: RecordingReader, server: str) -> Callable[[int], int]:
    """What a message of so many bytes takes of the uplink. Raises UsageError where that is not known, or what the
    connection took beside."""
    from sagelink.transport.webrtc.address import parse_url
    from sagelink.transport.webrtc.wire_cost import WebRtcCostModel

    if not server:
        return lambda message_bytes: 8 * message_bytes
    if not is_webrtc(server):
        obstacle = f"a run over {server}: what a message costs there depends on the broker, which is not recorded"
    elif any("tolls" not in row for row in recording.rows.values()):
        obstacle = "an older version, which did not record what the connection itself was charged"
    else:
        tls, host, _ = parse_url(server, "ship.server")
        return WebRtcCostModel(ipv6=":" in host, tls=tls).message_bits
    raise UsageError(f"recording {str(recording.folder)!r} is of {obstacle}; accepted: --uplink or --set, to compare")


def _row(rows: Mapping[Place, Row], frame: Frame) -> Row:
    return rows[frame.camera, frame.seq]


def _drop(row: Row) -> Drop | None:
    return None if row["verdict"]["drop"] is None else Drop(row["verdict"]["drop"])


class _RecordedClock:
    """A BudgetClock that says what it said then."""

    def __init__(self, rows: Mapping[Place, Row], key: str) -> None:
        self._rows = rows
        self._key = key

    def now_s(self, frame: Frame) -> float:
        row = _row(self._rows, frame)
        return float(row["asked_s"] if row[self._key] is None else row[self._key])


class _Outcomes:
    """A stage before fusion: a message without a reply was lost then for a reason that only the recording knows."""

    def __init__(self, rows: Mapping[Place, Row]) -> None:
        self._rows = rows

    async def process(self, outcome: Answered | EdgeOnly | PendingVerdict) -> Answered | EdgeOnly | PendingVerdict:
        reason = _drop(_row(self._rows, outcome.frame))
        if isinstance(outcome, EdgeOnly) and outcome.reason is Drop.LINK and reason in _FROM_OUTSIDE:
            return EdgeOnly(outcome.work, reason)
        return outcome


class _Frames:
    """All frames in the order in which they asked the budget; those never scored as Kept, as they ended then."""

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
    """An EdgeLink whose server is the recording: it gives the replies that came then, and takes nothing else."""

    def __init__(self, rows: Mapping[Place, Row], message_bits: Callable[[int], int]) -> None:
        """`message_bits`: on the wire, framing included, of a message of so many bytes."""
        self._rows = rows
        self._message_bits = message_bits
        self._down: Channel[tuple[str, bytes]] = Channel("downlink", capacity=64)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._down.close()

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        return self._message_bits(message_bytes)

    def refusal(self) -> str | None:
        return None

    async def ready(self) -> None:
        """At once."""

    async def send(self, camera: str, message: bytes) -> str | None:
        from sagelink.transport.wire import peek

        about = peek(message)
        assert about is not None, "the edge sent something that is no evidence"
        seq, _ = about
        reply = self._rows[camera, seq]["reply"]
        if reply is None:
            return "no reply came then"
        await self._down.put((camera, bytes.fromhex(reply)))
        return None

    def replies(self) -> AsyncIterator[tuple[str, bytes]]:
        return aiter(self._down)
