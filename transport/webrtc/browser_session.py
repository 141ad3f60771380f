"""A browser at the server: it sends its camera as video, each picture that is looked at becomes evidence of all units,
and the replies go back as text.

All viewers together take what one camera takes: one of their pictures is at the model at a time, and they take turns.
Whoever has the turn shows the newest picture; those before it are forgotten.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.responses import Response

from sagelink.net.video_peer import VideoPeer, VideoTerms
from sagelink.pipeline.tasks import background
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.webrtc.address import SignallingEndpoint
from sagelink.transport.webrtc.datagrams import NUMBERS
from sagelink.transport.webrtc.edge_session import SESSION

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

VIDEO_PATH = "/video"
# Any browser speaks VP8 (RFC 7742), and its pictures tell their size before they are decoded.
_TERMS = VideoTerms(max_silence_s=5.0, max_pixels=1920 * 1088, codecs=("VP8",), channel=True)


@dataclass(frozen=True, slots=True)
class BrowserSettings:
    """How many browsers a server lets in, and what it makes of their pictures."""

    most: int
    page: Mapping[str, Response]  # by path
    camera_info: CameraInfo
    evidence: Callable[[int, av.VideoFrame], Awaitable[bytes]]  # a picture of that number as a message
    words: Callable[[bytes, float], str]  # what a viewer is told of a reply, and of how many ms it took
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class BrowserSession:
    """One browser, from its offer to its end."""

    def __init__(
        self,
        identifier: int,
        at: SignallingEndpoint,
        audience: BrowserSettings,
        on_message: Callable[[Message], None],
        on_open: Callable[[BrowserSession], None],
    ) -> None:
        """`on_open` is told once that pictures come."""
        self.identifier = identifier
        self.addresses = [f"browser {identifier}"]
        self.camera_info: CameraInfo = audience.camera_info
        self.open = False
        self._audience = audience
        self._on_message = on_message
        self._on_open = on_open
        self._newest: tuple[float, av.VideoFrame] | None = None
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._number = 0
        self._reply: asyncio.Future[bytes] | None = None
        self._peer = VideoPeer(self._take, self._end, _TERMS, at.peer_configuration())

    async def answer(self, offer: str) -> str:
        """Raises OfferRefused, and is closed then."""
        return await self._peer.answer(offer)

    async def stay(self) -> None:
        """Until the browser leaves, or has sent no picture for too long."""
        try:
            async with background(self._show()):
                await self._ended.wait()
        finally:
            await self._peer.close()
            log.info("event=left viewer=%d reason=%r", self.identifier, self._peer.fault)

    def reply(self, camera: int, number: int, data: bytes) -> bool:
        """False when nobody waits for it any more."""
        if self._reply is None or self._reply.done() or number != self._number:
            return False
        self._reply.set_result(data)
        return True

    def _take(self, frame: av.VideoFrame) -> None:
        if not self.open:
            self.open = True
            self._on_open(self)
        self._newest = time.monotonic(), frame
        self._news.set()

    def _end(self, _: str) -> None:
        self._ended.set()

    async def _show(self) -> None:
        for seq in itertools.count():
            await self._news.wait()
            async with self._audience.turn:
                self._news.clear()
                assert self._newest is not None
                seen_s, frame = self._newest
                reply = await self._ask(seq, frame)
            if reply is not None:
                self._peer.send_text(self._audience.words(reply, (time.monotonic() - seen_s) * 1e3))

    async def _ask(self, seq: int, frame: av.VideoFrame) -> bytes | None:
        """The service's reply to a picture; None when it takes too long."""
        evidence = await self._audience.evidence(seq, frame)
        self._number = seq % NUMBERS
        self._reply = asyncio.get_running_loop().create_future()
        session = SESSION.pack(self.identifier, self._number, 0)
        self._on_message(Message(self.addresses[0], evidence, time.monotonic(), session))
        try:
            async with asyncio.timeout(self.camera_info.deadline_s):
                return await self._reply
        except TimeoutError:
            return None
