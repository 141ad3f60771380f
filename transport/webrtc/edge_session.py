"""One edge node at the server, from its offer to its end: its announcement, its evidence, and the replies to it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
import time
from collections.abc import Callable

from sagelink.net.offers import OfferRefused
from sagelink.transport.bundle import encode_bundle
from sagelink.transport.evidence_claim import peek
from sagelink.transport.head_messages import MAX_PART_BYTES, is_part, part_message_bytes
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.webrtc.address import SignallingEndpoint
from sagelink.transport.webrtc.node_announcement import decode_state
from sagelink.transport.webrtc.peer import Peer
from sagelink.transport.webrtc.reassembly import (
    ANNOUNCEMENT,
    EVIDENCE,
    HEAD,
    NUMBERS,
    REFUSAL,
    AssembledMessage,
    Assembler,
    pack_verdict,
    unpack_part,
)

log = logging.getLogger(__name__)

_ANSWER_S = 6.0  # longest time to make an answer: a STUN server may not respond
OPEN_S = 10.0  # longest time from the answer to an open connection
_MAX_ANNOUNCEMENT_BYTES = 44_000
_MAX_HEAD_MESSAGE_BYTES = 1 + part_message_bytes(MAX_PART_BYTES)
_REFUSED_S = 1.0  # from a refusal to the end of the connection, so that the reason arrives

SESSION = struct.Struct("!IHB")  # session identifier, message number, camera: `Message.session`, for routing the reply


class EdgeSession:
    """Calls `on_message` with each evidence message, and `on_announced` once, when the node has announced itself."""

    def __init__(
        self,
        identifier: int,
        endpoint: SignallingEndpoint,
        part_wait_s: float,
        on_message: Callable[[Message], None],
        on_announced: Callable[[EdgeSession], str | None],
        open_s: float = OPEN_S,
    ) -> None:
        """`on_announced` returns None, or the reason for refusing the node. `part_wait_s`: longest time between two
        parts of a message; `open_s`: longest time until a connection."""
        self.identifier = identifier
        self.node: str | None = None  # once it is accepted
        self.secret = ""  # of the node's run
        self.addresses: list[str] = []  # of the node's cameras; empty until it has announced itself
        self.camera_infos: dict[str, CameraInfo] = {}  # by address
        self.open = False
        self._on_message = on_message
        self._on_announced = on_announced
        self._open_s = open_s
        self._refused = False
        self._assembler = Assembler(part_wait_s)
        self._timer: asyncio.TimerHandle | None = None
        self._reply_numbers = itertools.count()
        self._peer = Peer(endpoint.peer_configuration(), self._receive_control, self._receive_evidence)

    async def answer(self, offer: str) -> str:
        """The answer to the node's offer. Raises OfferRefused; the session is closed then."""
        answer = None
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._peer.answer(offer)
        except TimeoutError:
            raise OfferRefused("no answer in time", 503) from None
        finally:
            if answer is None:
                await self._peer.close()
        return answer

    async def run(self) -> None:
        """Runs until the connection ends, or does not open in time."""
        reason: str | None = None
        try:
            self.open = await self._peer.opened(self._open_s)
            reason = await self._peer.run() if self.open else self._peer.fault
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._peer.close()
            log.info("event=left node=%s reason=%r", self.addresses[:1], reason)

    def reply(self, camera: int, number: int, data: bytes) -> bool:
        """Sends a reply on both channels: fast on one, certain on the other. False if the peer accepts none."""
        verdict = pack_verdict(camera, next(self._reply_numbers) % NUMBERS, number, data)
        self._peer.send_evidence(verdict)
        return self._peer.send_control(verdict)

    def _receive_control(self, data: bytes) -> None:
        if data[:1] == EVIDENCE:
            self._receive_evidence(data[1:])
        elif data[:1] == HEAD and self.addresses and len(data) <= _MAX_HEAD_MESSAGE_BYTES and is_part(data[1:]):
            self._on_message(Message(self.addresses[0], data[1:], time.monotonic()))
        elif data[:1] == ANNOUNCEMENT and not self._refused and len(data) <= _MAX_ANNOUNCEMENT_BYTES:
            self._receive_announcement(data[1:])

    def _receive_announcement(self, data: bytes) -> None:
        end = 1 + data[0] if data else 0
        node, state = data[1:end].decode(errors="replace"), decode_state(data[end:])
        if state is None:
            return
        cameras, secret = state
        addresses = {f"{node}/{camera}": info for camera, info in cameras.items()}
        if self.addresses:  # a later announcement changes only what the same cameras announce
            if node == self.node and secret == self.secret and [*addresses] == self.addresses:
                self.camera_infos = addresses
                self._on_announced(self)
            return
        self.camera_infos, self.secret = addresses, secret
        self.node, self.addresses = node, [*addresses]
        if (reason := self._on_announced(self)) is not None:
            self._refused = True
            self.node, self.addresses, self.camera_infos = None, [], {}
            self._peer.send_control(REFUSAL + reason.encode())
            asyncio.get_running_loop().call_later(_REFUSED_S, self.end, f"refused: {reason}")

    def send_head_status(self, status: bytes) -> None:
        """Sends a message about a head."""
        self._peer.send_control(HEAD + status)

    def end(self, reason: str) -> None:
        self._peer.end(reason)

    def _receive_evidence(self, data: bytes) -> None:
        part = unpack_part(data)
        if part is None or part.camera >= len(self.addresses):
            return
        self._deliver(self._assembler.add(time.monotonic(), part))

    def _expire(self) -> None:
        self._timer = None
        self._deliver(self._assembler.expire(time.monotonic()))

    def _deliver(self, finished: list[AssembledMessage]) -> None:
        """Passes on the finished messages, and sets the timer for the incomplete ones."""
        for message in finished:
            is_whole = not message.missing and len(message.parts) == 1
            data = message.parts[0] if is_whole else _bundle(message)
            session = SESSION.pack(self.identifier, message.number, message.camera)
            address = self.addresses[message.camera]
            self._on_message(Message(address, data, time.monotonic(), session, message.missing))
        due_s = self._assembler.due_s()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due_s - time.monotonic()), self._expire)


def _bundle(message: AssembledMessage) -> bytes:
    claim = peek(message.parts[0])
    return encode_bundle(claim.seq if claim else 0, message.parts)
