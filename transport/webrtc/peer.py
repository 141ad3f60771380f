"""One WebRTC connection between edge and server: two data channels, heartbeats while nothing else leaves, and why it
ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from aiortc import RTCConfiguration, RTCDataChannel, RTCSessionDescription
from aiortc.exceptions import InvalidStateError

from sagelink.net.connection_steps import failed_handshake
from sagelink.net.offers import OfferRefused, why_unusable
from sagelink.net.peer_compatibility import compatible_connection
from sagelink.transport.webrtc.aiortc_internals import (
    Gate,
    begin_repeats_early,
    gate_datagrams,
    join_acknowledgements,
    join_forward_tsn,
    keep_window,
    on_packet,
    repeat_handshake,
)
from sagelink.transport.webrtc.ice_diagnosis import diagnose_ice
from sagelink.transport.webrtc.reassembly import HEARTBEAT

_HEARTBEAT_S = 1.0
_DEAD_S = 2.5  # longest silence; with _POLL_S, a dead peer is reported within three seconds
_POLL_S = 0.25
_CLOSE_S = 1.0
_CONTROL, _EVIDENCE = 0, 1  # SCTP stream numbers: fixed here, not negotiated
_MAX_BUFFERED = 4_000_000  # bytes that may wait on a channel


class Peer:
    """The channel `control` is reliable, the channel `evidence` never retransmits; neither keeps the order.

    Both channels exist on both sides from the start. `on_control` and `on_evidence` are called in the event loop with
    each message that arrives.
    """

    def __init__(
        self,
        configuration: RTCConfiguration,
        on_control: Callable[[bytes], None],
        on_evidence: Callable[[bytes], None],
        on_drained: Callable[[], None] = lambda: None,
        gate: Gate | None = None,
        received: Callable[[int], None] = lambda bits: None,
        window_bytes: Callable[[], int] | None = None,
    ) -> None:
        """`on_drained` is called when `congested` becomes false again. `gate`: every datagram leaves through it;
        `received`: gets the bits of each that arrives."""
        self._servers = [str(server.urls) for server in configuration.iceServers or ()]
        self._connection = compatible_connection(configuration)
        self.fault: str | None = None  # the reason why the connection ended
        self._gate = gate
        self._received = received
        self._window_bytes = window_bytes
        self._ended = asyncio.Event()
        self._open = asyncio.Event()
        self._last_packet_s = time.monotonic()
        self._last_sent_s = 0.0
        self._control = self._channel("control", _CONTROL, None, on_control)
        self._evidence = self._channel("evidence", _EVIDENCE, 0, on_evidence)
        self._evidence.add_listener("bufferedamountlow", on_drained)
        self._connection.add_listener("connectionstatechange", self._on_state_change)
        self._connection.add_listener("datachannel", lambda _: self.end("the peer opened a channel of its own"))
        self._connection.add_listener("track", lambda _: self.end("the peer sent media where evidence is expected"))

    def _channel(
        self, label: str, stream: int, retransmits: int | None, on_data: Callable[[bytes], None]
    ) -> RTCDataChannel:
        channel = self._connection.createDataChannel(
            label, ordered=False, maxRetransmits=retransmits, negotiated=True, id=stream
        )

        def on_message(data: bytes | str) -> None:
            if isinstance(data, str):
                self.end("the peer sent text where binary messages are expected")
            elif not self._ended.is_set():
                on_data(data)

        channel.add_listener("message", on_message)
        channel.add_listener("open", self._on_channel_open)
        channel.add_listener("close", lambda: self.end("the peer closed a channel"))
        return channel

    def _on_channel_open(self) -> None:
        if self._control.readyState == self._evidence.readyState == "open":
            self._open.set()

    def _on_state_change(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self.end("the connection failed" if self._connection.connectionState == "failed" else "the peer has left")

    def end(self, reason: str) -> None:
        """Ends the connection; the first reason counts."""
        if not self._ended.is_set():
            self.fault = reason
            self._ended.set()
            self._open.set()

    async def offer(self) -> str:
        """The offer (SDP), with all ICE candidates."""
        await self._connection.setLocalDescription(await self._connection.createOffer())
        self._attach_observers()
        return self._connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        """Takes the answer (SDP). Raises OfferRefused if it is malformed."""
        await self._set_remote_description(answer, "answer")

    async def answer(self, offer: str) -> str:
        """The answer (SDP) to an offer. Raises OfferRefused if the offer is malformed, or offers media."""
        await self._set_remote_description(offer, "offer")
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        self._attach_observers()
        return self._connection.localDescription.sdp

    async def _set_remote_description(self, sdp: str, kind: str) -> None:
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, kind))
        except InvalidStateError as error:
            raise OfferRefused(str(error), 409) from None
        except Exception as error:  # aiortc does not validate SDP and fails in many ways
            raise OfferRefused(f"unusable SDP {kind}: {why_unusable(error)}") from None
        if self._connection.getTransceivers() or "m=application" not in sdp:
            raise OfferRefused(f"an evidence {kind} has one data section and no media")

    def _attach_observers(self) -> None:
        sctp = self._connection.sctp
        assert sctp is not None
        if self._gate is not None:
            gate_datagrams(sctp, self._gate, self._received)
        if self._window_bytes is not None:
            keep_window(sctp, self._window_bytes)
            join_acknowledgements(sctp)
            join_forward_tsn(sctp)
        begin_repeats_early(sctp)
        repeat_handshake(sctp)
        on_packet(sctp, self._on_packet)

    def _on_packet(self) -> None:
        self._last_packet_s = time.monotonic()

    async def opened(self, timeout_s: float) -> bool:
        """Waits until both channels are open. False if they do not open; then `fault` gives the reason."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._open.wait()
        self._last_packet_s = time.monotonic()
        if not self._open.is_set() or self._connection.connectionState == "failed":
            local, remote = self._connection.localDescription.sdp, self._connection.remoteDescription.sdp
            self.end("")
            sctp = self._connection.sctp
            cause = failed_handshake(sctp.transport if sctp else None) or diagnose_ice(local, remote, self._servers)
            self.fault = f"no connection: {cause}"
        return self.fault is None

    async def run(self) -> str:
        """Sends a heartbeat after each second without a message, until the connection ends. Returns the reason."""
        while True:
            now_s = time.monotonic()
            if now_s - self._last_packet_s > _DEAD_S:
                self.end(f"the peer was silent for {_DEAD_S:g} s")
            elif now_s - self._last_sent_s >= _HEARTBEAT_S:
                self.send_control(HEARTBEAT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._ended.wait()
            if self.fault is not None:
                return self.fault

    def send_control(self, data: bytes) -> bool:
        """Sends on the reliable channel; False if the connection has ended or the channel is full."""
        return self._send(self._control, data)

    def send_evidence(self, data: bytes) -> bool:
        """Sends on the channel without retransmissions; False as `send_control`."""
        return self._send(self._evidence, data)

    def _send(self, channel: RTCDataChannel, data: bytes) -> bool:
        if self._ended.is_set() or channel.readyState != "open" or channel.bufferedAmount > _MAX_BUFFERED:
            return False
        try:
            channel.send(data)
        except (InvalidStateError, ValueError):  # ValueError: longer than the peer accepts
            return False
        self._last_sent_s = time.monotonic()
        return True

    @property
    def congested(self) -> bool:
        """Whether evidence still waits to leave: SCTP holds it back, because the network is too slow for it."""
        return self._evidence.bufferedAmount > 0

    async def close(self) -> None:
        self.end("closed")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._connection.close()
