"""A node at the server: one peer from its offer to its end, what it announced, and its frames as they come together."""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
import time
from collections.abc import Callable

from sagelink.net.whip import OfferRefused
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.webrtc.address import SignallingEndpoint
from sagelink.transport.webrtc.announcement import decode_state
from sagelink.transport.webrtc.datagrams import (
    ANNOUNCEMENT,
    EVIDENCE,
    NUMBERS,
    Assembler,
    Gathered,
    pack_verdict,
    unpack_part,
)
from sagelink.transport.webrtc.peer import Peer
from sagelink.transport.wire import encode_bundle, peek

log = logging.getLogger(__name__)

_ANSWER_S = 6.0  # longest for an answer: a STUN server may be silent
_OPEN_S = 10.0  # longest from there to a connection
_ANNOUNCE_S = 5.0  # longest from there to an announcement
_LONGEST_ANNOUNCEMENT = 20_000

SESSION = struct.Struct("!IHB")  # guest, number of the message, camera: what a reply is sent by


class EdgeSession:
    """`on_message` gets evidence, `on_announced` is told once who this is."""

    def __init__(
        self,
        identifier: int,
        at: SignallingEndpoint,
        part_wait_s: float,
        on_message: Callable[[Message], None],
        on_announced: Callable[[EdgeSession], None],
    ) -> None:
        self.identifier = identifier
        self.addresses: list[str] = []
        self.camera_info: CameraInfo | None = None
        self.open = False
        self._on_message = on_message
        self._on_announced = on_announced
        self._assembler = Assembler(part_wait_s)
        self._timer: asyncio.TimerHandle | None = None
        self._replies = itertools.count()
        self._announced = asyncio.Event()
        self._peer = Peer(at.peer_configuration(), self._take_control, self._take_evidence)

    async def answer(self, offer: str) -> str:
        """Raises OfferRefused, and is closed then."""
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

    async def stay(self) -> None:
        """Until the connection ends, or has not come about in time."""
        reason: str | None = None
        try:
            self.open = await self._peer.opened(_OPEN_S)
            reason = await self._peer.live() if self.open else self._peer.fault
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._peer.close()
            log.info("event=left node=%s reason=%r", self.addresses[:1], reason)

    def reply(self, camera: int, number: int, data: bytes) -> bool:
        """Sends a reply twice: at once, and so that it arrives for certain. False when the peer takes none."""
        verdict = pack_verdict(camera, next(self._replies) % NUMBERS, number, data)
        self._peer.evidence(verdict)
        return self._peer.control(verdict)

    def _take_control(self, data: bytes) -> None:
        if data[:1] == EVIDENCE:
            self._take_evidence(data[1:])
            return
        if data[:1] != ANNOUNCEMENT or self._announced.is_set() or len(data) > _LONGEST_ANNOUNCEMENT:
            return
        node, state = data[2 : 2 + data[1]].decode(errors="replace"), decode_state(data[2 + data[1] :])
        if state is not None:
            self.camera_info, cameras = state
            self.addresses = [f"{node}/{camera}" for camera in cameras]
            self._announced.set()
            self._on_announced(self)

    def _take_evidence(self, data: bytes) -> None:
        part = unpack_part(data)
        if part is None or part.camera >= len(self.addresses):
            return
        self._pass_on(self._assembler.offer(time.monotonic(), part))

    def _expire(self) -> None:
        self._timer = None
        self._pass_on(self._assembler.expire(time.monotonic()))

    def _pass_on(self, gathered: list[Gathered]) -> None:
        for each in gathered:
            data = each.parts[0] if not each.missing and len(each.parts) == 1 else _bundle(each)
            session = SESSION.pack(self.identifier, each.number, each.camera)
            self._on_message(Message(self.addresses[each.camera], data, time.monotonic(), session, each.missing))
        due_s = self._assembler.due_s()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due_s - time.monotonic()), self._expire)


def _bundle(gathered: Gathered) -> bytes:
    about = peek(gathered.parts[0])
    return encode_bundle(about[0] if about else 0, gathered.parts)
