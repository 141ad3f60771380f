"""The server's end over WebRTC: it answers offers over HTTP, and has a guest for each node, a viewer for each browser
that came."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from sagelink.net.guard import require_secret
from sagelink.net.http import serve_http
from sagelink.net.whip import OfferRefused, offer_app
from sagelink.pipeline.channel import Channel, ChannelClosed
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.webrtc.address import ENV_TOKEN, SignallingEndpoint
from sagelink.transport.webrtc.browser_session import VIDEO_PATH, BrowserSession, BrowserSettings
from sagelink.transport.webrtc.edge_session import SESSION, EdgeSession
from sagelink.transport.webrtc.signalling import OFFER_PATH

log = logging.getLogger(__name__)

_ARRIVED = 1024  # messages that may wait for the service; it takes them at once, so more mean that the process stalls
_OPENING = 32  # offers that may be on their way to a connection


class WebRtcServerLink:
    """A ServerLink. A camera's address is `node/camera`; a node that comes again takes its earlier place."""

    def __init__(
        self,
        at: SignallingEndpoint,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        part_wait_s: float = 0.12,
        max_peers: int = 256,
        audience: BrowserSettings | None = None,
    ) -> None:
        """`audience`: browsers that are let in too. Raises UsageError for an address that others can reach without a
        token."""
        hint = f"Set {ENV_TOKEN} or webrtc.token_file"
        require_secret(at.host, at.token, "token", f"serve.listen {at.host!r}", hint)
        self._at = at
        self._tls = (certificate, key)
        self._part_wait_s = part_wait_s
        self._max_peers = max_peers
        self._audience = audience
        answerers = {OFFER_PATH: self._answer} | ({VIDEO_PATH: self._answer_browser} if audience else {})
        self._app = offer_app(answerers, audience.page if audience else {}, at.token)
        self._up: Channel[Message] = Channel("uplink", "drop_oldest", capacity=_ARRIVED)
        self.cameras: dict[str, CameraInfo] = {}
        self.port = at.port
        self.trouble: str | None = None  # it answers as long as it runs
        self._identifiers = itertools.count(1)
        self._guests: dict[int, EdgeSession | BrowserSession] = {}
        self._stays: dict[int, asyncio.Task[None]] = {}
        self._entered = AsyncExitStack()

    @property
    def url(self) -> str:
        return replace(self._at, port=self.port).url

    async def __aenter__(self) -> Self:
        """Raises UsageError when it cannot listen."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._say_goodbye)
            _, self.port = await stack.enter_async_context(
                serve_http(self._app, self._at.host, self._at.port, *self._tls)
            )
            self._entered = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self._entered.aclose()

    async def _say_goodbye(self) -> None:
        stays = [*self._stays.values()]
        for stay in stays:
            stay.cancel()
        await asyncio.gather(*stays, return_exceptions=True)

    def close(self) -> None:
        """Takes no more messages; replies to those inside are still sent until the link is left."""
        self._up.close()

    def messages(self) -> AsyncIterator[Message]:
        return aiter(self._up)

    async def reply(self, message: Message, data: bytes) -> bool:
        if len(message.session) != SESSION.size:
            return False
        identifier, number, camera = SESSION.unpack(message.session)
        guest = self._guests.get(identifier)
        return guest is not None and guest.reply(camera, number, data)

    async def _answer(self, offer: str) -> str:
        """The answer to a node's offer. Raises OfferRefused."""
        self._check_room(EdgeSession, self._max_peers)
        guest = EdgeSession(next(self._identifiers), self._at, self._part_wait_s, self._take, self._know)
        return await self._let_in(guest, offer)

    async def _answer_browser(self, offer: str) -> str:
        """The answer to a browser's. Raises OfferRefused."""
        assert self._audience is not None
        self._check_room(BrowserSession, self._audience.most)
        viewer = BrowserSession(next(self._identifiers), self._at, self._audience, self._take, self._know)
        return await self._let_in(viewer, offer)

    def _check_room(self, kind: type[EdgeSession] | type[BrowserSession], most: int) -> None:
        """Whether one more of that kind may come. Raises OfferRefused."""
        there = self._there(kind)
        opening = sum(not guest.open for guest in there)
        if self._up.closed or opening >= _OPENING or len(there) >= most:
            raise OfferRefused("too many peers; try again later", 503)

    def _there(self, kind: type[EdgeSession] | type[BrowserSession]) -> list[EdgeSession | BrowserSession]:
        return [guest for guest in self._guests.values() if isinstance(guest, kind)]

    @property
    def viewers(self) -> int:
        """How many browsers are here."""
        return len(self._there(BrowserSession))

    async def _let_in(self, guest: EdgeSession | BrowserSession, offer: str) -> str:
        """The answer to an offer; then the guest stays. Raises OfferRefused."""
        self._guests[guest.identifier] = guest
        answer = None
        try:
            answer = await guest.answer(offer)
        finally:
            if answer is None:
                del self._guests[guest.identifier]
        self._stays[guest.identifier] = asyncio.create_task(self._host(guest))
        return answer

    async def _host(self, guest: EdgeSession | BrowserSession) -> None:
        """One guest, from its answer to its end."""
        try:
            await guest.stay()
        finally:
            del self._guests[guest.identifier], self._stays[guest.identifier]
            for address in guest.addresses:
                if self.cameras.get(address) is guest.camera_info:
                    del self.cameras[address]

    def _take(self, message: Message) -> None:
        with contextlib.suppress(ChannelClosed):
            self._up.put_now(message)

    def _know(self, guest: EdgeSession | BrowserSession) -> None:
        assert guest.camera_info is not None
        self.cameras.update(dict.fromkeys(guest.addresses, guest.camera_info))
