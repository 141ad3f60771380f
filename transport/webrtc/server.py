"""The server's end over WebRTC: answers offers over HTTP, and runs one session per edge node and per browser."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from sagelink.net.access_guard import require_secret
from sagelink.net.http import serve_http
from sagelink.net.offers import OfferRefused
from sagelink.net.whip import offer_app
from sagelink.pipeline.channel import Channel, ChannelClosed
from sagelink.pipeline.credentials import same_secret
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.webrtc.address import ENV_TOKEN, SignallingEndpoint
from sagelink.transport.webrtc.browser_session import VIDEO_PATH, BrowserSession, BrowserSettings
from sagelink.transport.webrtc.edge_session import OPEN_S, SESSION, EdgeSession
from sagelink.transport.webrtc.signalling import OFFER_PATH

log = logging.getLogger(__name__)

_MAX_WAITING = 1024  # messages for the service, which reads them at once: more mean that the process stalls
_MAX_OPENING = 32  # sessions of one kind whose connection is not open yet
_MAX_OPENING_PER_ADDRESS = 8
_SLOW_S = 2.0  # a session that has been opening for longer leaves its place to a new one


class WebRtcServerLink:
    """A ServerLink. A camera's address is `node/camera`; a node that connects again replaces its earlier session."""

    def __init__(
        self,
        endpoint: SignallingEndpoint,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        part_wait_s: float = 0.12,
        max_peers: int = 256,
        browsers: BrowserSettings | None = None,
        open_s: float = OPEN_S,
    ) -> None:
        """`part_wait_s`: longest time between two parts of a message; `max_peers`: edge nodes at a time; `browsers`:
        None accepts no browsers; `open_s`: longest time from an answer to an open connection.

        Raises UsageError if other hosts can reach the address and there is no token."""
        hint = f"Set {ENV_TOKEN} or webrtc.token_file"
        require_secret(endpoint.host, endpoint.token, "token", f"serve.listen {endpoint.host!r}", hint)
        self._endpoint = endpoint
        self._tls = (certificate, key)
        self._part_wait_s = part_wait_s
        self._max_peers = max_peers
        self._browsers = browsers
        self._open_s = open_s
        answerers = {OFFER_PATH: self._answer_edge} | ({VIDEO_PATH: self._answer_browser} if browsers else {})
        self._app = offer_app(answerers, browsers.pages if browsers else {}, endpoint.token)
        self._received: Channel[Message] = Channel("uplink", "drop_oldest", capacity=_MAX_WAITING)
        self.cameras: dict[str, CameraInfo] = {}
        self.port = endpoint.port
        self.trouble: str | None = None  # the server itself answers, so it can be reached while it runs
        self._identifiers = itertools.count(1)
        self._sessions: dict[int, EdgeSession | BrowserSession] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}  # that run the sessions
        self._origins: dict[int, tuple[str, float]] = {}  # address that posted the offer, and when
        self._entered = AsyncExitStack()

    @property
    def url(self) -> str:
        return replace(self._endpoint, port=self.port).url

    async def __aenter__(self) -> Self:
        """Raises UsageError when it cannot listen."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._end_sessions)
            _, self.port = await stack.enter_async_context(
                serve_http(self._app, self._endpoint.host, self._endpoint.port, *self._tls)
            )
            self._entered = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self._entered.aclose()

    async def _end_sessions(self) -> None:
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Accepts no more messages; replies to messages already received are sent until the link is left."""
        self._received.close()

    def serve_fitting(self, misfit: Callable[[CameraInfo], str | None]) -> None:
        """Does nothing: edges choose their server, and no other server shares the frames."""

    def messages(self) -> AsyncIterator[Message]:
        return aiter(self._received)

    async def seek_head(self, fingerprint: bytes) -> float:
        return 0.0

    async def end_seeking(self, fingerprint: bytes) -> None:
        """Does nothing: only edges have heads."""

    async def send_head_status(self, camera: str, status: bytes) -> None:
        for session in self._sessions_of(EdgeSession):
            if isinstance(session, EdgeSession) and camera in session.addresses:
                session.send_head_status(status)

    async def reply(self, message: Message, data: bytes) -> bool:
        if len(message.session) != SESSION.size:
            return False
        identifier, number, camera = SESSION.unpack(message.session)
        session = self._sessions.get(identifier)
        return session is not None and session.reply(camera, number, data)

    async def _answer_edge(self, offer: str, address: str) -> str:
        """The answer to an edge node's offer. Raises OfferRefused."""
        self._make_room(EdgeSession, self._max_peers, address)
        session = EdgeSession(
            next(self._identifiers), self._endpoint, self._part_wait_s, self._receive, self._announce_node, self._open_s
        )
        return await self._start(session, offer, address)

    async def _answer_browser(self, offer: str, address: str) -> str:
        """The answer to a browser's offer. Raises OfferRefused."""
        assert self._browsers is not None
        self._make_room(BrowserSession, self._browsers.max_browsers, address)
        session = BrowserSession(next(self._identifiers), self._endpoint, self._browsers, self._receive, self._announce)
        return await self._start(session, offer, address)

    def _make_room(self, kind: type[EdgeSession] | type[BrowserSession], max_sessions: int, address: str) -> None:
        """Ends the oldest session that is still opening if the address, or all together, have too many of them: peers
        that post offers and never connect keep nobody out. Raises OfferRefused if no further session is accepted."""
        sessions = self._sessions_of(kind)
        opening = [session for session in sessions if not session.open and session.identifier in self._tasks]
        own = [session for session in opening if self._origins[session.identifier][0] == address]
        slow_s = asyncio.get_running_loop().time() - _SLOW_S
        slow = [session for session in opening if self._origins[session.identifier][1] < slow_s]
        if self._received.closed or (len(sessions) >= max_sessions and not slow):
            raise OfferRefused("too many peers; try again later", 503)
        if len(own) >= _MAX_OPENING_PER_ADDRESS:
            self._tasks[own[0].identifier].cancel()
        elif len(sessions) >= max_sessions:
            self._tasks[slow[0].identifier].cancel()
        elif len(opening) >= _MAX_OPENING:
            self._tasks[opening[0].identifier].cancel()

    def _sessions_of(self, kind: type[EdgeSession] | type[BrowserSession]) -> list[EdgeSession | BrowserSession]:
        return [session for session in self._sessions.values() if isinstance(session, kind)]

    @property
    def viewers(self) -> int:
        """The number of connected browsers."""
        return len(self._sessions_of(BrowserSession))

    async def _start(self, session: EdgeSession | BrowserSession, offer: str, address: str) -> str:
        """Answers the offer and starts the session. Raises OfferRefused."""
        self._sessions[session.identifier] = session
        self._origins[session.identifier] = address, asyncio.get_running_loop().time()
        answer = None
        try:
            answer = await session.answer(offer)
        finally:
            if answer is None:
                del self._sessions[session.identifier], self._origins[session.identifier]
        self._tasks[session.identifier] = asyncio.create_task(self._run(session))
        return answer

    async def _run(self, session: EdgeSession | BrowserSession) -> None:
        try:
            await session.run()
        finally:
            for table in (self._sessions, self._tasks, self._origins):
                del table[session.identifier]
            for address, camera_info in session.camera_infos.items():
                if self.cameras.get(address) is camera_info:  # else: a newer session of the node
                    del self.cameras[address]

    def _receive(self, message: Message) -> None:
        with contextlib.suppress(ChannelClosed):
            self._received.put_now(message)

    def _announce_node(self, session: EdgeSession) -> str | None:
        """Lists the cameras of a node. Returns the reason for refusing it: its name belongs to another connected peer.
        A peer with the same secret is the same run, whose earlier connection has not been found dead yet."""
        if not session.node or "/" in session.node:
            return f"{session.node!r} is no name of a node; accepted: a name without '/'"
        for other in [*self._sessions.values()]:
            if other is session or not isinstance(other, EdgeSession) or other.node != session.node:
                continue
            if not same_secret(other.secret, session.secret):
                reason = f"the node name {session.node!r} belongs to another connected peer; set another webrtc.node"
                log.warning("event=node_refused reason=%r", reason)
                return reason
            other.end("a newer connection of the same run took its place")
        self._announce(session)
        return None

    def _announce(self, session: EdgeSession | BrowserSession) -> None:
        self.cameras.update(session.camera_infos)
