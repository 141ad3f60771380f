"""One browser at the server: its camera's video becomes evidence of all units, and replies go back to it as text.

All browsers together cost the server as much as one camera: one of their pictures is at the model at a time, and they
take turns. The browser whose turn it is sends its newest picture; its earlier ones are discarded.
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
from sagelink.transport.webrtc.address import SignallingEndpoint, browser_address
from sagelink.transport.webrtc.edge_session import SESSION
from sagelink.transport.webrtc.reassembly import NUMBERS

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

VIDEO_PATH = "/video"
# Every browser supports VP8 (RFC 7742), and the size of its pictures is known before they are decoded.
_TERMS = VideoTerms(max_silence_s=5.0, max_pixels=1920 * 1088, codecs=("VP8",), channel=True)


@dataclass(frozen=True, slots=True)
class BrowserSettings:
    """The number of browsers that a server accepts, and how it processes their pictures."""

    max_browsers: int
    pages: Mapping[str, Response]  # by path
    camera_info: CameraInfo
    encode_picture: Callable[[int, av.VideoFrame], Awaitable[bytes]]  # evidence message of a picture, with this `seq`
    format_reply: Callable[[bytes, float], str]  # the text for the browser, from a reply and its delay in ms
    model_turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by the browser whose picture is at the model


class BrowserSession:
    """One browser, from its offer to its end."""

    def __init__(
        self,
        identifier: int,
        endpoint: SignallingEndpoint,
        settings: BrowserSettings,
        on_message: Callable[[Message], None],
        on_open: Callable[[BrowserSession], None],
    ) -> None:
        """`on_message` is called with each evidence message, `on_open` once, when the first picture arrives."""
        self.identifier = identifier
        self.addresses = [browser_address(identifier)]
        self.camera_info: CameraInfo = settings.camera_info
        self.camera_infos = dict.fromkeys(self.addresses, self.camera_info)
        self.open = False
        self._settings = settings
        self._on_message = on_message
        self._on_open = on_open
        self._newest: tuple[float, av.VideoFrame] | None = None  # time of arrival, and the picture
        self._has_picture = asyncio.Event()
        self._ended = asyncio.Event()
        self._number = 0  # of the message that waits for its reply
        self._reply: asyncio.Future[bytes] | None = None
        self._peer = VideoPeer(self._receive, self._end, _TERMS, endpoint.peer_configuration())

    async def answer(self, offer: str) -> str:
        """The answer to the browser's offer. Raises OfferRefused; the session is closed then."""
        return await self._peer.answer(offer)

    async def run(self) -> None:
        """Runs until the browser leaves, or sends no picture for too long."""
        try:
            async with background(self._classify_pictures()):
                await self._ended.wait()
        finally:
            await self._peer.close()
            log.info("event=left viewer=%d reason=%r", self.identifier, self._peer.fault)

    def reply(self, camera: int, number: int, data: bytes) -> bool:
        """Takes the reply to message `number`. False if the session does not wait for it any more."""
        if self._reply is None or self._reply.done() or number != self._number:
            return False
        self._reply.set_result(data)
        return True

    def _receive(self, frame: av.VideoFrame) -> None:
        if not self.open:
            self.open = True
            self._on_open(self)
        self._newest = time.monotonic(), frame
        self._has_picture.set()

    def _end(self, _: str) -> None:
        self._ended.set()

    async def _classify_pictures(self) -> None:
        for seq in itertools.count():
            await self._has_picture.wait()
            async with self._settings.model_turn:
                self._has_picture.clear()
                assert self._newest is not None
                arrived_s, frame = self._newest
                reply = await self._request(seq, frame)
            if reply is not None:
                self._peer.send_text(self._settings.format_reply(reply, (time.monotonic() - arrived_s) * 1e3))

    async def _request(self, seq: int, frame: av.VideoFrame) -> bytes | None:
        """The server's reply to a picture; None if it takes too long."""
        evidence = await self._settings.encode_picture(seq, frame)
        self._number = seq % NUMBERS
        self._reply = asyncio.get_running_loop().create_future()
        session = SESSION.pack(self.identifier, self._number, 0)
        self._on_message(Message(self.addresses[0], evidence, time.monotonic(), session))
        try:
            async with asyncio.timeout(self.camera_info.deadline_s):
                return await self._reply
        except TimeoutError:
            return None
