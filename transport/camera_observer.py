"""The contract of a console that learns of cameras, and a server link that is observed (for links without a broker)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol, Self

from sagelink.transport.link import CameraInfo, Message, ServerLink
from sagelink.transport.picture_parts import PicturePart

_LOOK_S = 0.5  # between two looks at which cameras are connected


class CameraObserver(Protocol):
    """What learns of cameras. Times are seconds of the monotonic clock; `wire_bits` are estimates of uplink bits."""

    def online(self, camera: str, info: CameraInfo, now_s: float) -> None: ...

    def offline(self, camera: str, reason: str | None, now_s: float) -> None:
        """`reason`: None where the camera was offline before anybody observed it."""
        ...

    def evidence(self, message: Message, wire_bits: int) -> None: ...

    def reply(self, camera: str, data: bytes, now_s: float) -> None: ...

    def event(self, camera: str, record: Mapping[str, Any], wire_bits: int, now_s: float) -> None: ...

    def digest(self, camera: str, record: Mapping[str, Any], wire_bits: int, now_s: float) -> None: ...

    def picture(self, camera: str, part: PicturePart, wire_bits: int, now_s: float) -> None:
        """A part of the picture of an event."""
        ...

    def settings(self, camera: str, values: Mapping[str, Any]) -> None:
        """What a camera has answered to a change of its settings."""
        ...

    def lacks_head(self, fingerprint: bytes) -> bool:
        """Whether the names of the classes of a head are wanted."""
        ...

    def head(self, content: bytes) -> None:
        """A head file that was wanted."""
        ...

    def ignored(self, node: str, reason: str) -> None:
        """A message that has no effect."""
        ...


class ObservedLink:
    """A ServerLink that tells an observer of what passes."""

    def __init__(self, link: ServerLink, observer: CameraObserver, wire_bits: Callable[[int], int]) -> None:
        """`wire_bits`: estimated uplink bits of a message, by its bytes."""
        self._link = link
        self._observer = observer
        self._wire_bits = wire_bits
        self._known: dict[str, CameraInfo] = {}

    async def __aenter__(self) -> Self:
        await self._link.__aenter__()
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._link.__aexit__(*reason)

    @property
    def cameras(self) -> Mapping[str, CameraInfo]:
        return self._link.cameras

    async def watch(self) -> None:
        """Tells which cameras come and go, until it is cancelled."""
        while True:
            self._look()
            await asyncio.sleep(_LOOK_S)

    def _look(self) -> None:
        now_s, cameras = time.monotonic(), dict(self._link.cameras)
        for camera, info in cameras.items():
            if self._known.get(camera) != info:
                self._observer.online(camera, info, now_s)
        for camera in self._known.keys() - cameras.keys():
            self._observer.offline(camera, "the connection ended", now_s)
        self._known = cameras

    async def messages(self) -> AsyncIterator[Message]:
        async for message in self._link.messages():
            if message.sender not in self._known and message.sender in self._link.cameras:
                self._look()
            self._observer.evidence(message, self._wire_bits(len(message.data)))
            yield message

    async def seek_head(self, fingerprint: bytes) -> float:
        return await self._link.seek_head(fingerprint)

    async def end_seeking(self, fingerprint: bytes) -> None:
        await self._link.end_seeking(fingerprint)

    async def send_head_status(self, camera: str, status: bytes) -> None:
        await self._link.send_head_status(camera, status)

    async def reply(self, message: Message, data: bytes) -> bool:
        self._observer.reply(message.sender, data, time.monotonic())
        return await self._link.reply(message, data)
