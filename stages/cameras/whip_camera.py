"""A WHIP camera: `webrtc:` listens for a peer that pushes a video track (RFC 9725), and delivers its pictures.

The endpoint listens for the whole run, in its own thread with its own event loop, so that packets never wait for the
run. It accepts one peer at a time; the session of that peer is the connection that the camera's reader gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from sagelink.net.access_guard import require_secret
from sagelink.net.http import listen, serve_http
from sagelink.net.offers import OfferRefused
from sagelink.net.optional_aiortc import need_aiortc
from sagelink.net.video_peer import VideoPeer, VideoTerms
from sagelink.net.whip import whip_app
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.credentials import load_bearer_token
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Pixels
from sagelink.stages.cameras.address import push_address
from sagelink.stages.cameras.contract import CameraConnection, Grabbed
from sagelink.stages.cameras.fault_kinds import CameraFault
from sagelink.stages.cameras.supervisor import FaultKind
from sagelink.stages.decoded_picture import MAX_SIDE, FrameConverter

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

ENV_TOKEN = "SAGELINK_PUSH_TOKEN"  # noqa: S105 (its name)
PATH = "/whip"
_CLOSE_S = 1.5  # longest wait for the endpoint's thread to end


class WhipEndpoint:
    """Accepts peers. `connect` waits for one; its first call starts the HTTP server."""

    def __init__(self, config: CameraConfig) -> None:
        """Reserves the port. Raises UsageError when it is taken, or when others can reach it without a token."""
        need_aiortc(f"source {config.source!r}")
        self._host, self._port = push_address(config.source)
        self._token = load_bearer_token(ENV_TOKEN, "token_file", config.token_file, "push")
        where, hint = f"source {config.source!r}: {self._host!r}", f"Set {ENV_TOKEN} or token_file"
        require_secret(self._host, self._token, "token", where, hint)
        self._silent_s = config.read_timeout
        self._name = config.name
        self._origins = config.push_origins
        self._reserved = listen(self._host, self._port)  # keeps the port from other cameras until the server starts
        self.port: int = self._reserved.getsockname()[1]
        self._thread: threading.Thread | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._error: str | None = None
        self._changed = threading.Condition()
        self._session: WhipSession | None = None

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}{PATH}"

    @property
    def running(self) -> bool:
        """Whether the server's thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def connect(self, config: CameraConfig) -> CameraConnection:
        """Waits for a peer, at most `open_timeout`. Raises CameraFault."""
        if self._thread is None:
            self._reserved.close()
            self._thread = threading.Thread(target=self._run, name=f"sagelink-whip-{self._name}", daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._answered_session() is not None or self._error, config.open_timeout)
            if self._error:
                raise CameraFault(FaultKind.FAILED, self._error)
            session = self._answered_session()
            if session is None:
                raise CameraFault(FaultKind.TIMED_OUT, f"no peer pushes to {self.url}")
            return session

    def _answered_session(self) -> WhipSession | None:
        """The session of a peer that has our answer."""
        session = self._session
        return session if session is not None and session.answered else None

    def close(self) -> None:
        """Ends the session and the server."""
        self._reserved.close()
        if self._thread is None:
            self._loop.close()
            return
        self._error = "the run has ended"
        self._notify()
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except UsageError as error:
            self._error = str(error)
            self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _serve(self) -> None:
        app = whip_app(PATH, self._answer, self._end_session, self._token, self._origins)
        async with serve_http(app, self._host, self.port):
            log.info("camera=%s event=listening url=%s", self._name, self.url)
            await self._stop.wait()
        await self._end_session()

    async def _answer(self, offer: str, _: str) -> str:
        if self._session is not None:
            raise OfferRefused("another peer is sending here; it has to leave first", 409)
        session = self._session = WhipSession(self._name, self._forget, asyncio.get_running_loop(), self._silent_s)
        answer = await session.peer.answer(offer)
        session.answered = True
        self._notify()
        return answer

    async def _end_session(self) -> None:
        if self._session is not None:
            await self._session.peer.close()

    def _forget(self, session: WhipSession) -> None:
        if self._session is session:
            self._session = None


class WhipSession:
    """A CameraConnection: one peer, from its offer to its end.

    Made in the endpoint's event loop; `grab`, `picture` and `close` are called in the camera's thread.
    """

    finite = False
    skipped = 0

    def __init__(
        self, name: str, on_end: Callable[[WhipSession], None], loop: asyncio.AbstractEventLoop, silent_s: float
    ) -> None:
        """`name`: of the camera. `on_end` is called in the loop when the peer has gone; `silent_s`: longest time
        without a picture."""
        self._on_end = on_end
        self._loop = loop
        self._silent_s = silent_s
        self._changed = threading.Condition()
        self._newest: av.VideoFrame | None = None
        self._grabbed: av.VideoFrame | None = None
        self.answered = False
        self.peer = VideoPeer(self._take, self._end, VideoTerms(silent_s, MAX_SIDE**2))
        self._convert = FrameConverter(name)

    def _take(self, frame: av.VideoFrame) -> None:
        with self._changed:
            self._newest = frame
            self._changed.notify()

    def _end(self, _: str) -> None:
        self._on_end(self)
        with self._changed:
            self._changed.notify()

    def grab(self) -> Grabbed:
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self.peer.fault is not None, self._silent_s)
            self._grabbed, self._newest = self._newest, None
        if self._grabbed is None:
            if self.peer.fault is None:
                raise CameraFault(FaultKind.TIMED_OUT, "the peer sends no picture")
            raise CameraFault(FaultKind.END_OF_FILE, self.peer.fault)
        return Grabbed(self._grabbed.time)

    def picture(self) -> Pixels:
        assert self._grabbed is not None
        return self._convert(self._grabbed)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # the endpoint has closed, and has closed the peer
            self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self.peer.close()))
