"""The edge's end over WebRTC: sends evidence as datagrams that are useful one by one, and charges every uplink bit."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from sagelink.net.offers import OfferRefused
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.transport.bundle import PART_BYTES, parts_of
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.head_messages import HeadPart, decode_status, encode_part
from sagelink.transport.head_sender import HeadOffers, with_heads
from sagelink.transport.link import CameraInfo
from sagelink.transport.reconnect import Reconnector
from sagelink.transport.remote_edge import MAX_REPLIES, PREPAID_S, RemoteEdgeLink
from sagelink.transport.webrtc.address import SignallingEndpoint
from sagelink.transport.webrtc.datagram_gate import DatagramGate
from sagelink.transport.webrtc.node_announcement import encode_state
from sagelink.transport.webrtc.peer import Peer
from sagelink.transport.webrtc.reassembly import (
    ANNOUNCEMENT,
    EVIDENCE,
    HEAD,
    NUMBERS,
    REFUSAL,
    VERDICT,
    Part,
    pack_part,
    unpack_verdict,
)
from sagelink.transport.webrtc.resend_timer import ResendTimer
from sagelink.transport.webrtc.signalling import Unreachable, exchange
from sagelink.transport.webrtc.wire_cost import MAX_SCTP_MESSAGE_BYTES, WebRtcCostModel
from sagelink.transport.wire_cost import Prepaid, WireCharger

_CONNECT_S = 8.0
_WINDOW_BYTES, _WINDOW_S = 4 * 1200, 0.5  # that SCTP may have under way, in bytes and at the rate of the budget
_ALIVE_BITS = 8 * 240  # a second
_SHORT_S = 1.0  # windows up to here reserve nothing for that
_STUN_BITS, _TURN_BITS = 8 * 4 * 90, 8 * 1400  # requests, some of them repeated
_SECRET_BYTES = 16

Recovered = Literal["resent", "rescued"]


class WebRtcEdgeLink(RemoteEdgeLink):
    """An EdgeLink. All cameras of a process share one connection.

    `wire_ledger`: the budget of a live run. With None this is the link of a replay: its budget runs on the time of the
    stream and charges nothing for the connection; evidence travels on the reliable channel, so that every replay gives
    the same results; and entering the link fails unless the first attempt to connect succeeds.
    """

    def __init__(
        self,
        endpoint: SignallingEndpoint,
        node: str,
        cameras: Sequence[str],
        camera_info: CameraInfo,
        *,
        wire_ledger: WireLedger | None,
        on_recovered: Callable[[Recovered], None] = lambda _: None,
        heads: HeadOffers | None = None,
    ) -> None:
        """`on_recovered` is called for each recovered loss: a message was sent again ("resent"), or a verdict arrived
        on the reliable channel only ("rescued"). `heads`: see RemoteEdgeLink."""
        self._replay = wire_ledger is None
        super().__init__(wire_ledger, self._replay, heads)
        self._endpoint = endpoint
        self._cameras = list(cameras)
        self._node = node
        self._camera_info = camera_info
        self._secret = secrets.token_hex(_SECRET_BYTES)
        self._on_recovered = on_recovered
        self._cost_model = WebRtcCostModel(ipv6=":" in endpoint.host, tls=endpoint.tls)
        self._numbers = itertools.count()
        self._received: deque[int] = deque(maxlen=MAX_REPLIES)  # numbers of recent replies, each of which arrives twice
        self._resend_timer = ResendTimer()
        # Messages of one datagram that wait for their verdict, by number: time of sending, and the resend.
        self._unanswered: dict[int, tuple[float, asyncio.TimerHandle]] = {}
        self._peer: Peer | None = None
        self._reconnector = Reconnector("server", endpoint.url, self._run_connection, self._charger.pause_s)

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        return self._cost_model.message_bits(message_bytes)

    def _is_connected(self) -> bool:
        return self._peer is not None

    def _congestion(self) -> str | None:
        assert self._peer is not None
        return "the network is slower than the evidence" if self._peer.congested else None

    def max_message_bytes(self, camera: str) -> int:
        return MAX_SCTP_MESSAGE_BYTES

    def _announcement(self) -> bytes:
        cameras = {name: with_heads(self._camera_info, self._heads.offers, name) for name in self._cameras}
        state = encode_state(cameras, True, self._secret)
        return ANNOUNCEMENT + _length_prefixed(self._node.encode()) + state

    def _part_bits(self, message_bytes: int) -> int:
        return self._cost_model.message_bits(message_bytes)

    async def _transmit_part(self, part: HeadPart) -> None:
        if self._peer is not None:
            self._peer.send_control(HEAD + encode_part(part))

    async def _announce(self) -> None:
        if self._peer is not None:
            self._heads.announced(self._cameras)
            self._peer.send_control(self._announcement())

    async def _transmit(self, camera: str, message: bytes, prepaid: Prepaid) -> None:
        assert self._peer is not None
        self._close_later(prepaid, PREPAID_S)
        number, index = next(self._numbers) % NUMBERS, self._cameras.index(camera)
        if self._replay:
            self._peer.send_control(EVIDENCE + pack_part(Part(index, number, 0, 1, message)))
            return
        parts = parts_of(message)
        self._charger.trim(prepaid, self._cost_model.parts_bits(sum(map(len, parts)), len(parts)))
        if len(parts) == 1 and len(message) <= PART_BYTES:
            self._schedule_resend(camera, number, pack_part(Part(index, number, 0, 1, message)), len(message))
        for place, part in enumerate(parts):
            self._peer.send_evidence(pack_part(Part(index, number, place, len(parts), part)))
        await asyncio.sleep(0)  # lets the datagrams leave that the network takes at once, before `refusal` is called

    def _schedule_resend(self, camera: str, number: int, datagram: bytes, message_bytes: int) -> None:
        """Sends a message of one datagram a second time if no verdict arrives: losing it would lose the frame."""
        if len(self._unanswered) == MAX_REPLIES:
            self._unanswered.pop(next(iter(self._unanswered)))[1].cancel()
        bits = self._cost_model.message_bits(message_bytes)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._resend_timer.timeout_s, self._resend, camera, datagram, bits)
        self._unanswered[number] = time.monotonic(), timer

    def _resend(self, camera: str, datagram: bytes, bits: int) -> None:
        if self.refusal() is None and self._peer is not None and self._try_prepay(camera, bits):
            self._peer.send_evidence(datagram)
            self._on_recovered("resent")

    async def _run_connection(self) -> str:
        """One connection from start to end. Returns the reason why it ended."""
        self._charger.attempt_bits = 0
        connect_bits = self._cost_model.connect_bits(len(self._announcement()))
        packet_bits = self._cost_model.packet_bits() + _alive_bits(self._charger, 1.0)
        if (refusal := self._charger.refusal(connect_bits, packet_bits, _CONNECT_S)) is not None:
            return refusal
        try:
            return await self._run_peer()
        except Unreachable as error:
            return str(error)

    async def _run_peer(self) -> str:
        """Raises Unreachable if no connection is established."""
        gate = DatagramGate(self._charger)
        peer = Peer(
            self._endpoint.peer_configuration(),
            on_control=partial(self._receive, reliable=True),
            on_evidence=self._receive,
            on_drained=self._changed.set,
            gate=gate.send,
            received=self._charger.received,
            window_bytes=self._window_bytes,
        )
        try:
            self._charge_gathering()
            answer = await exchange(self._endpoint, await peer.offer(), charger=self._charger)
            # One moment may fill a window; from a short one, bits leave soon enough for a heartbeat. Not before the
            # exchange, which reserves for its own connection.
            self._charger.reserve(_alive_bits(self._charger, max(0.0, self._charger.window_s - _SHORT_S)))
            try:
                await peer.accept(answer)
            except OfferRefused as error:
                raise Unreachable(f"the server's answer: {error}") from None
            if not await peer.opened(_CONNECT_S):
                raise Unreachable(peer.fault or "")
            peer.send_control(self._announcement())
            self._received.clear()
            self._heads.forget()
            self._heads.announced(self._cameras)
            self._peer = peer
            self._reconnector.established()
            self._changed.set()
            return await peer.run()
        finally:
            self._peer = None
            await peer.close()
            gate.close()
            self._charger.reserve(0)

    def _receive(self, data: bytes, reliable: bool = False) -> None:
        """Delivers a verdict once; the server sends it on both channels, and the reliable one is usually later."""
        if reliable and data[:1] == REFUSAL and self._peer is not None:
            self._peer.end(f"the server refuses this node: {data[1:].decode(errors='replace')}")
            return
        if reliable and data[:1] == HEAD:
            with contextlib.suppress(MalformedMessage):
                self._heads.take(decode_status(data[1:]))
                self._changed.set()
            return
        verdict = unpack_verdict(data[1:]) if data[:1] == VERDICT else None
        if verdict is None:
            return
        camera, reply_number, number, reply = verdict
        if reply_number in self._received or camera >= len(self._cameras):
            return
        self._received.append(reply_number)
        if reliable:
            self._on_recovered("rescued")
        if (unanswered := self._unanswered.pop(number, None)) is not None:
            sent_s, timer = unanswered
            timer.cancel()
            self._resend_timer.record(time.monotonic() - sent_s)
        self._deliver(self._cameras[camera], reply)

    def _window_bytes(self) -> int:
        return max(_WINDOW_BYTES, int(_WINDOW_S * (self._charger.rate_bps or 0) / 8))

    def _charge_gathering(self) -> None:
        """The requests to STUN and TURN servers leave before the gate exists, so they are charged before they leave."""
        for server in self._endpoint.ice_servers:
            self._charger.left(_TURN_BITS if server.url.startswith("turn") else _STUN_BITS, of_messages=False)


def _alive_bits(charger: WireCharger, seconds: float) -> int:
    """For a heartbeat a second, and an acknowledgement of the server's; at most a part of the window."""
    return 0 if charger.limit_bits is None else min(int(_ALIVE_BITS * seconds), charger.limit_bits // 8)


def _length_prefixed(text: bytes) -> bytes:
    return bytes([len(text)]) + text
