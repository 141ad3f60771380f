"""The edge's end over WebRTC: evidence as datagrams that are useful one by one, nothing sent that was not charged."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Literal, Self

from sagelink.net.whip import OfferRefused
from sagelink.pipeline.backoff import Backoff
from sagelink.pipeline.channel import Channel, ChannelClosed
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.tasks import background
from sagelink.transport.link import CameraInfo
from sagelink.transport.webrtc.address import SignallingEndpoint
from sagelink.transport.webrtc.announcement import encode_state
from sagelink.transport.webrtc.datagrams import (
    ANNOUNCEMENT,
    EVIDENCE,
    NUMBERS,
    VERDICT,
    Part,
    pack_part,
    unpack_verdict,
)
from sagelink.transport.webrtc.peer import Peer
from sagelink.transport.webrtc.resend_timer import ResendTimer
from sagelink.transport.webrtc.signalling import Unreachable, exchange
from sagelink.transport.webrtc.wire_cost import WebRtcCostModel
from sagelink.transport.wire import MAX_MESSAGE_BYTES, PART_BYTES, parts_of
from sagelink.transport.wire_cost import ChargeOverhead, OverheadCharger

log = logging.getLogger(__name__)

_CHECK_S = 0.25  # between two looks at the count
_CONNECT_S = 8.0
_PROVEN_S = 5.0  # a connection that lived so long was a success
_REPLIES = 64
_LONGEST = 262_000  # bytes: what aiortc takes as one message

Recovered = Literal["resent", "rescued"]


class WebRtcEdgeLink:
    """An EdgeLink. All cameras of a process share one connection.

    `charge_overhead` charges the budget for whatever is no message. Without it this is the link of a replay: its budget runs on
    the stream's time and leaves that uncharged; evidence goes by the reliable channel, so that it comes out the same
    again; and entering it fails unless the first attempt to connect succeeds.
    """

    def __init__(
        self,
        at: SignallingEndpoint,
        node: str,
        cameras: Sequence[str],
        camera_info: CameraInfo,
        *,
        charge_overhead: ChargeOverhead | None,
        on_recovered: Callable[[Recovered], None] = lambda _: None,
    ) -> None:
        """`on_recovered`: a message went again, or a verdict came by the reliable channel alone."""
        self._at = at
        self._cameras = list(cameras)
        self._announcement = (
            ANNOUNCEMENT + _sized(node.encode()) + encode_state(camera_info, self._cameras, online=True)
        )
        self._replay = charge_overhead is None
        self._on_recovered = on_recovered
        self._down: Channel[tuple[str, bytes]] = Channel("downlink", "drop_oldest", capacity=_REPLIES)
        self._changed = asyncio.Event()
        self._till = OverheadCharger(charge_overhead, self._changed.set)
        self._tariff = WebRtcCostModel(ipv6=":" in at.host, tls=at.tls)
        self._numbers = itertools.count()
        self._seen: deque[int] = deque(maxlen=_REPLIES)  # replies come twice
        self._round_trip = ResendTimer()
        self._single: dict[int, tuple[float, asyncio.TimerHandle]] = {}  # messages of one datagram, by number
        self._peer: Peer | None = None
        self._attempted = asyncio.Event()
        self._trouble = f"{at.url}: not connected yet"
        self._entered = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self._close)
            await stack.enter_async_context(background(self._run()))
            if self._replay:
                await self._attempted.wait()
                if self._peer is None:
                    raise SagelinkError(f"the server cannot be reached: {self._trouble}")
            self._entered = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._down.close()
        await self._entered.aclose()

    def _close(self) -> None:
        self._down.close()
        self._changed.set()

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        return self._tariff.message_bits(message_bytes)

    def refusal(self) -> str | None:
        if self._down.closed:
            return "the link is closed"
        if self._peer is None:
            return self._trouble
        if self._till.owed_bits:
            return f"{self._till.owed_bits} bits of the connection's own are still to be charged"
        if self._peer.congested:
            return "the network takes evidence slower than it comes"
        return None

    async def ready(self) -> None:
        while self.refusal() is not None and not self._down.closed:
            self._changed.clear()
            await self._changed.wait()

    async def send(self, camera: str, message: bytes) -> str | None:
        refusal = self.refusal()
        if refusal is not None or self._peer is None:
            return refusal
        if len(message) > MAX_MESSAGE_BYTES:
            return f"{len(message)} bytes; accepted: up to {MAX_MESSAGE_BYTES}"
        if len(message) > _LONGEST:
            return f"{len(message)} bytes; accepted over WebRTC: up to {_LONGEST}"
        self._till.record_message(self.wire_bits(camera, len(message)))
        number, index = next(self._numbers) % NUMBERS, self._cameras.index(camera)
        if self._replay:
            self._peer.control(EVIDENCE + pack_part(Part(index, number, 0, 1, message)))
            return None
        parts = parts_of(message)
        if len(parts) == 1 and len(message) <= PART_BYTES:
            self._watch(number, pack_part(Part(index, number, 0, 1, message)), self.wire_bits(camera, len(message)))
        for place, part in enumerate(parts):
            self._peer.evidence(pack_part(Part(index, number, place, len(parts), part)))
        await asyncio.sleep(0)  # what the network takes at once has left before anybody asks `refusal`
        return None

    def _watch(self, number: int, datagram: bytes, bits: int) -> None:
        """Where a message is one datagram, its loss would be the frame's: it goes again, once, if no verdict comes."""
        if len(self._single) == _REPLIES:
            self._single.pop(next(iter(self._single)))[1].cancel()
        timer = asyncio.get_running_loop().call_later(self._round_trip.patience_s, self._send_again, datagram, bits)
        self._single[number] = time.monotonic(), timer

    def _send_again(self, datagram: bytes, bits: int) -> None:
        if self.refusal() is None and self._peer is not None and self._till.try_charge(bits):
            self._peer.evidence(datagram)
            self._on_recovered("resent")

    def replies(self) -> AsyncIterator[tuple[str, bytes]]:
        return aiter(self._down)

    async def _run(self) -> None:
        """Connects, for ever again, until it is cancelled."""
        backoff = Backoff()
        while True:
            began_s = time.monotonic()
            try:
                await self._till.open_connection(self._tariff.connect_bits())
                reason = await self._session()
            except Unreachable as error:
                reason = str(error)
            self._lost(reason)
            if time.monotonic() - began_s > _PROVEN_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    def _lost(self, reason: str) -> None:
        trouble = f"{self._at.url}: {reason}"
        if trouble != self._trouble:  # once per change, not once an attempt
            self._trouble = trouble
            log.warning("event=disconnected server=%s reason=%r", self._at.url, reason)
        self._attempted.set()

    async def _session(self) -> str:
        """One connection, until it ends; why. Raises Unreachable."""
        peer = Peer(self._at.peer_configuration(), partial(self._take, slow=True), self._take, self._changed.set)
        try:
            answer = await exchange(self._at, await peer.offer())
            try:
                await peer.accept(answer)
            except OfferRefused as error:
                raise Unreachable(f"the server's answer: {error}") from None
            async with background(self._check_bill(peer)):
                if not await peer.opened(_CONNECT_S):
                    raise Unreachable(peer.fault or "")
                peer.control(self._announcement)
                self._trouble = ""
                self._seen.clear()
                self._peer = peer
                self._attempted.set()
                self._changed.set()
                log.info("event=connected server=%s", self._at.url)
                return await peer.live()
        finally:
            self._peer = None
            await peer.close()

    def _take(self, data: bytes, slow: bool = False) -> None:
        """A verdict, the first time that it comes; it comes on both channels, on the reliable one as the second."""
        verdict = unpack_verdict(data[1:]) if data[:1] == VERDICT else None
        if verdict is None:
            return
        camera, reply, number, body = verdict
        if reply in self._seen or camera >= len(self._cameras):
            return
        self._seen.append(reply)
        if slow:
            self._on_recovered("rescued")
        if (single := self._single.pop(number, None)) is not None:
            sent_s, timer = single
            timer.cancel()
            self._round_trip.learn(time.monotonic() - sent_s)
        with contextlib.suppress(ChannelClosed):
            self._down.put_now((self._cameras[camera], body))

    async def _check_bill(self, peer: Peer) -> None:
        """Charges what has left beyond the estimates: heartbeats, acknowledgements, ICE consent, a long handshake."""
        while True:
            await asyncio.sleep(_CHECK_S)
            await self._till.settle(peer.meter.sent_bits)


def _sized(text: bytes) -> bytes:
    return bytes([len(text)]) + text
