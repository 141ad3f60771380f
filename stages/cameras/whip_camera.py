"""A camera that comes to us: `webrtc:` listens for a peer that pushes a video track (WHIP, RFC 9725).

The door stays open for as long as the run: it has a thread with an event loop of its own, so that packets never wait
for the run. A peer that is there is the connection which the camera's reader takes; one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from sagelink.net.extras import need_aiortc
from sagelink.net.guard import require_secret
from sagelink.net.http import listen, serve_http
from sagelink.net.video_peer import VideoPeer, VideoTerms
from sagelink.net.whip import OfferRefused, whip_app
from sagelink.pipeline.config import CameraConfig
from sagelink.pipeline.credentials import load_bearer_token
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Pixels
from sagelink.stages.cameras.address import push_address
from sagelink.stages.cameras.contract import CameraConnection, Grabbed
from sagelink.stages.cameras.faults import CameraFault
from sagelink.stages.cameras.supervisor import Fault
from sagelink.stages.decoded import MAX_SIDE, upright

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

ENV_TOKEN = "SAGELINK_PUSH_TOKEN"  # noqa: S105 (its name)
PATH = "/whip"
_END_S = 1.5


class WhipEndpoint:
    """Where peers come in. `connect` waits for one, and opens the door the first time."""

    def __init__(self, config: CameraConfig) -> None:
        """Raises UsageError for an address that cannot be had, or that others can reach without a token."""
        need_aiortc(f"source {config.source!r}")
        self._host, self._port = push_address(config.source)
        self._token = load_bearer_token(ENV_TOKEN, "token_file", config.token_file, "push")
        where, hint = f"source {config.source!r}: {self._host!r}", f"Set {ENV_TOKEN} or token_file"
        require_secret(self._host, self._token, "token", where, hint)
        self._silent_s = config.read_timeout
        self._name = config.name
        self._held = listen(self._host, self._port)  # so that another camera cannot have it
        self.port: int = self._held.getsockname()[1]
        self._thread: threading.Thread | None = None
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._trouble: str | None = None
        self._news = threading.Condition()
        self._visit: WhipSession | None = None

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}{PATH}"

    def connect(self, config: CameraConfig) -> CameraConnection:
        """Waits for a peer, at most `open_timeout`. Raises CameraFault."""
        if self._thread is None:
            self._held.close()
            self._thread = threading.Thread(target=self._run, name=f"sagelink-door-{self._name}", daemon=True)
            self._thread.start()
        with self._news:
            self._news.wait_for(lambda: self._guest() is not None or self._trouble, config.open_timeout)
            if self._trouble:
                raise CameraFault(Fault.FAILED, self._trouble)
            visit = self._guest()
            if visit is None:
                raise CameraFault(Fault.TIMED_OUT, f"nobody pushes to {self.url}")
            return visit

    def _guest(self) -> WhipSession | None:
        """Who is there and has an answer."""
        visit = self._visit
        return visit if visit is not None and visit.answered else None

    def close(self) -> None:
        """Ends the visit and closes the door."""
        self._held.close()
        if self._thread is None:
            self._loop.close()
            return
        self._trouble = "the run has ended"
        self._tell()
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(_END_S)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except UsageError as error:
            self._trouble = str(error)
            self._tell()

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    async def _serve(self) -> None:
        app = whip_app(PATH, self._answer, self._part, self._token)
        async with serve_http(app, self._host, self.port):
            log.info("camera=%s event=listening url=%s", self._name, self.url)
            await self._over.wait()
        await self._part()

    async def _answer(self, offer: str) -> str:
        if self._visit is not None:
            raise OfferRefused("another peer is sending here; it has to leave first", 409)
        visit = self._visit = WhipSession(self, asyncio.get_running_loop(), self._silent_s)
        answer = await visit.peer.answer(offer)
        visit.answered = True
        self._tell()
        return answer

    async def _part(self) -> None:
        if self._visit is not None:
            await self._visit.peer.close()

    def forget(self, visit: WhipSession) -> None:
        """The visit is over."""
        if self._visit is visit:
            self._visit = None


class WhipSession:
    """A Connection: one peer, from its offer to its end. Made in the door's loop, read by the camera's thread."""

    finite = False
    skipped = 0

    def __init__(self, door: WhipEndpoint, loop: asyncio.AbstractEventLoop, silent_s: float) -> None:
        self._door = door
        self._loop = loop
        self._silent_s = silent_s
        self._news = threading.Condition()
        self._newest: av.VideoFrame | None = None
        self._grabbed: av.VideoFrame | None = None
        self.answered = False
        self.peer = VideoPeer(self._take, self._end, VideoTerms(silent_s, MAX_SIDE**2))

    def _take(self, frame: av.VideoFrame) -> None:
        with self._news:
            self._newest = frame
            self._news.notify()

    def _end(self, _: str) -> None:
        self._door.forget(self)
        with self._news:
            self._news.notify()

    def grab(self) -> Grabbed:
        with self._news:
            self._news.wait_for(lambda: self._newest is not None or self.peer.fault is not None, self._silent_s)
            self._grabbed, self._newest = self._newest, None
        if self._grabbed is None:
            if self.peer.fault is None:
                raise CameraFault(Fault.TIMED_OUT, "the peer sends no picture")
            raise CameraFault(Fault.END_OF_FILE, self.peer.fault)
        return Grabbed(self._grabbed.time)

    def picture(self) -> Pixels:
        assert self._grabbed is not None
        return upright(self._grabbed)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # the door has closed, and has sent the peer away
            self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self.peer.close()))
