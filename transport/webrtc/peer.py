"""One connection between two peers: two data channels, and a sign of life each second."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError

from sagelink.net.whip import OfferRefused
from sagelink.transport.webrtc.datagrams import HEARTBEAT
from sagelink.transport.webrtc.ice_diagnosis import diagnose_ice
from sagelink.transport.webrtc.wire_cost import DatagramCounter

_HEARTBEAT_S = 1.0
_DEAD_S = 2.5  # without a packet: told within three seconds
_LOOK_S = 0.25
_CLOSE_S = 1.0
_CONTROL, _EVIDENCE = 0, 1  # stream numbers, agreed here: nothing is negotiated in the band
_QUEUED = 4_000_000  # bytes that may wait on a channel


class Peer:
    """`control` is reliable, `evidence` never sends anything twice; neither keeps order. Both are there on both sides
    from the start. `on_control` and `on_evidence` get what arrives, in the event loop."""

    def __init__(
        self,
        configuration: RTCConfiguration,
        on_control: Callable[[bytes], None],
        on_evidence: Callable[[bytes], None],
        on_drained: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_drained`: `congested` is false again."""
        self._servers = [str(each.urls) for each in configuration.iceServers or ()]
        self._connection = RTCPeerConnection(configuration)
        self.fault: str | None = None  # why it has ended
        self.meter = DatagramCounter()
        self._ended = asyncio.Event()
        self._open = asyncio.Event()
        self._heard_s = time.monotonic()
        self._control = self._channel("control", _CONTROL, None, on_control)
        self._evidence = self._channel("evidence", _EVIDENCE, 0, on_evidence)
        self._evidence.add_listener("bufferedamountlow", on_drained)
        self._connection.add_listener("connectionstatechange", self._changed)
        self._connection.add_listener("datachannel", lambda _: self._end("the peer opened a channel of its own"))
        self._connection.add_listener("track", lambda _: self._end("the peer sent media where evidence is expected"))

    def _channel(
        self, label: str, stream: int, retransmits: int | None, take: Callable[[bytes], None]
    ) -> RTCDataChannel:
        channel = self._connection.createDataChannel(
            label, ordered=False, maxRetransmits=retransmits, negotiated=True, id=stream
        )

        def on_message(data: bytes | str) -> None:
            if isinstance(data, str):
                self._end("the peer sent text where binary messages are expected")
            elif not self._ended.is_set():
                take(data)

        channel.add_listener("message", on_message)
        channel.add_listener("open", self._opened)
        channel.add_listener("close", lambda: self._end("the peer closed a channel"))
        return channel

    def _opened(self) -> None:
        if self._control.readyState == self._evidence.readyState == "open":
            self._open.set()

    def _changed(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._end("the connection failed" if self._connection.connectionState == "failed" else "the peer has left")

    def _end(self, reason: str) -> None:
        if not self._ended.is_set():
            self.fault = reason
            self._ended.set()
            self._open.set()

    async def offer(self) -> str:
        """The offer, with every candidate in it."""
        await self._connection.setLocalDescription(await self._connection.createOffer())
        self._watch()
        return self._connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        """Raises OfferRefused for what is no answer."""
        await self._describe(answer, "answer")

    async def answer(self, offer: str) -> str:
        """Raises OfferRefused for what is no offer of data channels."""
        await self._describe(offer, "offer")
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        self._watch()
        return self._connection.localDescription.sdp

    async def _describe(self, sdp: str, kind: str) -> None:
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, kind))
        except InvalidStateError as error:
            raise OfferRefused(str(error), 409) from None
        except Exception as error:  # the parser of aiortc believes what it reads, and fails in many ways
            raise OfferRefused(f"not an SDP {kind} that can be used: {error or type(error).__name__}") from None
        if self._connection.getTransceivers() or "m=application" not in sdp:
            raise OfferRefused(f"an {kind} of evidence has one data section and no media")

    def _watch(self) -> None:
        sctp = self._connection.sctp
        assert sctp is not None
        self.meter.attach(sctp.transport.transport._connection)
        handle = sctp._handle_data

        async def heard(data: bytes) -> None:
            self._heard_s = time.monotonic()
            await handle(data)

        sctp._handle_data = heard  # type: ignore[method-assign]  # acknowledgements are signs of life too

    async def opened(self, timeout_s: float) -> bool:
        """Waits until messages can flow; False when they cannot, and `fault` says why."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._open.wait()
        self._heard_s = time.monotonic()
        if not self._open.is_set() or self._connection.connectionState == "failed":
            described = self._connection.localDescription.sdp, self._connection.remoteDescription.sdp
            self._end("")
            self.fault = f"no connection: {diagnose_ice(*described, self._servers)}"
        return self.fault is None

    async def live(self) -> str:
        """Sends heartbeats until the connection ends; the reason."""
        beaten_s = 0.0
        while True:
            now_s = time.monotonic()
            if now_s - self._heard_s > _DEAD_S:
                self._end(f"the peer was silent for {_DEAD_S:g} s")
            elif now_s - beaten_s >= _HEARTBEAT_S:
                self.control(HEARTBEAT)
                beaten_s = now_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._ended.wait()
            if self.fault is not None:
                return self.fault

    def control(self, data: bytes) -> bool:
        """Sends on the reliable channel; False when the peer takes nothing."""
        return self._send(self._control, data)

    def evidence(self, data: bytes) -> bool:
        return self._send(self._evidence, data)

    def _send(self, channel: RTCDataChannel, data: bytes) -> bool:
        if self._ended.is_set() or channel.readyState != "open" or channel.bufferedAmount > _QUEUED:
            return False
        try:
            channel.send(data)
        except (InvalidStateError, ValueError):  # ValueError: longer than the peer said that it takes
            return False
        return True

    @property
    def congested(self) -> bool:
        """Whether evidence still waits to leave: SCTP holds it back, because the network takes it slower than it
        comes."""
        return self._evidence.bufferedAmount > 0

    async def close(self) -> None:
        self._end("closed")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._connection.close()
