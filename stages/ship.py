"""Ship stages: charge the budget, send evidence and wait for the reply. `Evidence` in, `Sent` then `Answered` out.

Three stages share one `Uplink`. `Pace` makes a replay wait for its replies. `Ship` takes a place in the link window,
charges the budget and sends. `Collect` waits for the reply and frees the place. At most `in_flight` messages are
unacknowledged; a reply is the acknowledgement.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from sagelink.pipeline.answers import TaughtClasses
from sagelink.pipeline.budget.camera_accounts import CameraAccount
from sagelink.pipeline.clock import BudgetClock
from sagelink.pipeline.tasks import background
from sagelink.pipeline.types import Answered, Drop, EdgeOnly, Evidence, Reply, Scored, Sent
from sagelink.stages.server_watch import ServerWatch
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.link import EdgeLink, Undelivered
from sagelink.transport.reply_message import decode_reply

log = logging.getLogger(__name__)

AHEAD = 64  # frames; see Pace
_BUSY = "the server is busy: frames wait in its queue for more than half of the deadline"


# Waits until the given function, whether a charge is covered by the ledger on disk, is true, or cannot become true now.
Reserve = Callable[[Callable[[], bool]], Awaitable[None]]


class Uplink:
    """The link window and the pending replies."""

    def __init__(
        self,
        link: EdgeLink,
        in_flight: int,
        deadline_s: float | None = None,
        goes_first: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        `in_flight`: largest number of unacknowledged messages.
        `deadline_s`: of a live run; nothing is sent while frames would spend most of it in the server's queue.
        `goes_first`: whether something else waits that is sent before evidence.
        """
        self.link = link
        self.places = asyncio.Semaphore(in_flight)
        self.waiting: dict[tuple[str, int], asyncio.Future[Reply]] = {}  # by camera and seq
        self.stray_replies = 0  # malformed, unknown or too late
        self.server_watch = ServerWatch()
        self._refusal: str | None = None
        self._link_refused = False
        self._reply_fault: str | None = None  # of the last malformed reply
        self._deadline_s = deadline_s
        self._busy_until_s = 0.0
        self._goes_first = goes_first

    @property
    def is_replay(self) -> bool:
        """Whether the run waits for its replies."""
        return self._deadline_s is None

    def refuses(self, taught: TaughtClasses | None = None) -> bool:
        """Whether no evidence for these classes can be sent now; each new reason is logged once. A link logs what it
        refuses for one head."""
        if taught is not None and self.link.head_refusal(taught.fingerprint) is not None:
            return True
        if self._goes_first():
            return True
        link_refusal = refusal = self.link.refusal()
        if refusal is None:
            if self._link_refused:
                self.server_watch.reset()  # it may be another server
            if time.monotonic() < self._busy_until_s:
                refusal = _BUSY
            elif self._deadline_s is not None:
                refusal = self.server_watch.refusal(time.monotonic())
        self._link_refused = link_refusal is not None
        is_probe = refusal is None and self.server_watch.is_silent
        if refusal != self._refusal and not is_probe:
            self._refusal = refusal
            if refusal is not None:
                log.warning("stage=ship event=link_down reason=%r", refusal)
        return refusal is not None

    async def listen(self) -> None:
        """Resolves the futures in `waiting` as replies arrive; when the link closes, the others get ConnectionError."""
        try:
            async for camera, data in self.link.replies():
                if isinstance(data, Undelivered):
                    self._fail(camera, data.seq)
                    continue
                try:
                    reply = decode_reply(data)
                except MalformedMessage as error:
                    self.stray_replies += 1
                    if str(error) != self._reply_fault:  # once per change, not per reply
                        self._reply_fault = str(error)
                        log.warning("stage=ship event=malformed_reply error=%r", self._reply_fault)
                    continue
                self._note_queue(reply)
                future = self.waiting.pop((camera, reply.seq), None)
                if future is None or future.done():
                    self.stray_replies += 1
                else:
                    future.set_result(reply)
        finally:
            for future in self.waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError("the link has closed"))

    def _fail(self, camera: str, seq: int) -> None:
        """The link, which has logged the reason, could not deliver a message."""
        future = self.waiting.pop((camera, seq), None)
        if future is not None and not future.done():
            future.set_exception(ConnectionError("the message was not delivered"))

    def _note_queue(self, reply: Reply) -> None:
        """Stops sending to a busy server for as long as the frame waited there, so that its queue can empty."""
        queue_s = reply.queue_ms / 1e3
        if self._deadline_s is not None and queue_s > self._deadline_s / 2:
            self._busy_until_s = time.monotonic() + min(queue_s, self._deadline_s)

    async def replied(self, camera: str, seq: int) -> None:
        """Waits until no reply to a frame of `camera` up to `seq` is pending."""
        replies = [reply for (name, sent_seq), reply in self.waiting.items() if name == camera and sent_seq <= seq]
        if replies:
            await asyncio.wait(replies)


class Pace:
    """Limits how many later verdicts are held in memory: verdicts are written in order, so they wait for a reply."""

    def __init__(self, uplink: Uplink, ahead: Callable[[str], int] = lambda camera: AHEAD) -> None:
        """`ahead`: by camera, how many frames may be decided while the reply to an earlier one is pending."""
        self._uplink = uplink
        self._ahead = ahead

    async def process(self, scored: Scored) -> Scored:
        camera = scored.frame.camera
        await self._uplink.replied(camera, scored.frame.seq - self._ahead(camera))
        return scored


class Ship:
    def __init__(
        self,
        uplink: Uplink,
        accounts: Mapping[str, CameraAccount],
        clock: BudgetClock,
        wait_for_place: bool,
        reserve: Reserve | None = None,
    ) -> None:
        """`accounts`: by camera. `wait_for_place`: True for a replay, which waits while the link window is full; a live
        run drops the frame. `reserve`: waits until a charge is covered."""
        self._uplink = uplink
        self._accounts = accounts
        self._clock = clock
        self._wait_for_place = wait_for_place
        self._reserve = reserve

    async def process(self, evidence: Evidence) -> Sent | EdgeOnly:
        places = self._uplink.places
        if self._wait_for_place:
            await self._uplink.link.ready()
        elif places.locked() or self._uplink.refuses(evidence.selected.metered.scored.taught):
            return EdgeOnly(evidence, Drop.LINK)
        await places.acquire()
        sent = None
        try:
            sent = await self._send(evidence)
        finally:
            if not isinstance(sent, Sent):
                places.release()
        return sent

    async def _send(self, evidence: Evidence) -> Sent | EdgeOnly:
        frame = evidence.frame
        account = self._accounts[frame.camera]
        if self._reserve is not None:
            await self._reserve(lambda: account.is_covered(self._clock.now_s(frame), evidence.wire_bits))
        if not account.charge(self._clock.now_s(frame), evidence.wire_bits):
            return EdgeOnly(evidence, Drop.BUDGET)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._uplink.waiting[frame.camera, frame.seq] = reply
        sent = Sent(evidence, account.now_s, account.window_bits(account.now_s), time.monotonic_ns(), reply)
        accepted = False
        try:
            accepted = await self._uplink.link.send(frame.camera, evidence.message) is None
        finally:
            if not accepted:
                del self._uplink.waiting[frame.camera, frame.seq]
        self._uplink.server_watch.sent(time.monotonic())
        # A refused message stays charged: a part of it may be on the wire.
        if not accepted:
            account.end_reply(evidence.wire_bits)
        return sent if accepted else EdgeOnly(sent, Drop.LINK)


class Collect:
    def __init__(
        self, uplink: Uplink, deadline_s: float | None, accounts: Mapping[str, CameraAccount] | None = None
    ) -> None:
        """`deadline_s`: longest wait for a reply; None: until the link closes. `accounts`: by camera; they provide for
        replies."""
        self._accounts = accounts or {}
        self._uplink = uplink
        self._deadline_s = deadline_s
        self._last_refusal: str | None = None
        self._entered = AsyncExitStack()

    async def __aenter__(self) -> Collect:
        await self._entered.enter_async_context(background(self._uplink.listen()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._entered.aclose()

    async def process(self, sent: Sent) -> Answered | EdgeOnly:
        try:
            async with asyncio.timeout(self._deadline_s):
                reply = await sent.reply
        except TimeoutError:
            if not sent.reply.done() or sent.reply.cancelled():
                self._note_late(sent)
                return EdgeOnly(sent, Drop.LATE)
            reply = sent.reply.result()  # it arrived at the deadline: the scene counts it, so the verdict must too
        except ConnectionError:
            self._uplink.server_watch.failed(time.monotonic(), "not delivered")
            return EdgeOnly(sent, Drop.LINK)
        finally:
            self._uplink.waiting.pop((sent.frame.camera, sent.frame.seq), None)
            self._uplink.places.release()
            if (account := self._accounts.get(sent.frame.camera)) is not None:
                account.end_reply(sent.evidence.wire_bits)
        if reply.refusal is not None:
            if reply.refusal != self._last_refusal:  # once per change, not per frame
                self._last_refusal = reply.refusal
                log.warning("stage=ship event=refused seq=%d reason=%r", reply.seq, reply.refusal)
            self._uplink.server_watch.failed(time.monotonic(), "refused")
            return EdgeOnly(sent, Drop.REFUSED)
        self._uplink.server_watch.reset()
        elapsed_ms = (time.monotonic_ns() - sent.sent_ns) / 1e6
        return Answered(sent, reply, max(0.0, elapsed_ms - reply.server_ms))

    def _note_late(self, sent: Sent) -> None:
        """The first reply in a row that a replay has waited for in vain is logged: its deadline is long."""
        watch = self._uplink.server_watch
        if self._uplink.is_replay and not watch.in_vain:
            log.warning(
                "stage=ship event=no_reply seq=%d waited_s=%g: the server is slow or gone, and further frames wait too",
                sent.frame.seq,
                self._deadline_s,
            )
        watch.failed(time.monotonic(), "late")
