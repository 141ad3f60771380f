"""Sends the heads of an edge to servers that ask for them, in parts that the budget pays for.

While a server waits for a head, or refuses it, the edge sends no evidence for it: nothing is charged for frames that
cannot be answered. Parts are charged as overhead before they are sent, over as many windows as they take.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Protocol

from sagelink.transport.head_messages import (
    MAX_HEAD_BYTES,
    MAX_PART_BYTES,
    HeadPart,
    HeadState,
    HeadStatus,
    part_message_bytes,
)
from sagelink.transport.link import CameraInfo

log = logging.getLogger(__name__)

_RETRY_S = 0.02  # between two attempts to charge a part
_OFFER_S = 1.0  # after an announcement, the longest wait for what servers say about the head
_COMING_S = 10.0  # a head that is on its way from elsewhere, or was sent whole, counts as there after this time
_REFUSED_S = 30.0  # after this time a refused head is offered again
_MIN_PART_BYTES = 100


class HeadOffers(Protocol):
    """The heads of a run, as far as its link needs them."""

    @property
    def backbone(self) -> str:
        """Fingerprint of the server model that the heads were taught on; empty without a head."""
        ...

    def fingerprints(self, camera: str) -> tuple[bytes, ...]:
        """Of the heads that the next frames of a camera may have."""
        ...

    def earlier_fingerprints(self, camera: str) -> tuple[bytes, ...]:
        """Of the heads that only frames on their way have."""
        ...

    def content(self, fingerprint: bytes) -> bytes | None:
        """The head file; None if the run does not have it."""
        ...

    def listen(self, changed: Callable[[], None]) -> None:
        """Adds a callback that is called, in any thread, after the head of a camera has changed."""
        ...


class NoHeads:
    """The offers of a run whose cameras have the model's own classes."""

    backbone = ""

    def fingerprints(self, camera: str) -> tuple[bytes, ...]:
        return ()

    def earlier_fingerprints(self, camera: str) -> tuple[bytes, ...]:
        return ()

    def content(self, fingerprint: bytes) -> bytes | None:
        return None

    def listen(self, changed: Callable[[], None]) -> None:
        """Does nothing: nothing changes."""


def with_heads(camera_info: CameraInfo, offers: HeadOffers, camera: str) -> CameraInfo:
    """The announcement of a camera, with its heads."""
    heads = tuple(fingerprint.hex() for fingerprint in offers.fingerprints(camera))
    earlier = tuple(fingerprint.hex() for fingerprint in offers.earlier_fingerprints(camera))
    backbone = offers.backbone if heads or earlier else ""
    return replace(camera_info, heads=heads, earlier_heads=earlier, backbone=backbone)


class HeadSender:
    """All methods are called from the event loop."""

    def __init__(
        self,
        offers: HeadOffers,
        send_part: Callable[[HeadPart], Awaitable[bool]],
        part_bits: Callable[[int], int],
        charge: Callable[[int], bool],
        window_bits: Callable[[], int | None],
    ) -> None:
        """`send_part` returns False while the link is not connected. `part_bits`: bits on the wire of a part, by the
        bytes of its message. `charge` charges bits before they are sent; False if the window has no room now.
        `window_bits`: limit of a window; None without one."""
        self.offers = offers
        self._send_part = send_part
        self._part_bits = part_bits
        self._charge = charge
        self._window_bits = window_bits
        self._states: dict[bytes, tuple[HeadStatus, float]] = {}  # and when it came; held ones are left out
        self._offered: dict[bytes, float] = {}  # heads that no server has spoken of yet, and when they were announced
        self._logged: dict[bytes, str] = {}
        self._wanted: dict[bytes, int] = {}  # heads to send, and the byte to begin at
        self._woken = asyncio.Event()

    def take(self, status: HeadStatus) -> None:
        """Takes what a server says about a head."""
        fingerprint = status.fingerprint
        if self.offers.content(fingerprint) is None:
            return
        self._offered.pop(fingerprint, None)
        if status.state is HeadState.HELD:
            self._states.pop(fingerprint, None)
            self._wanted.pop(fingerprint, None)
            self._note(fingerprint, "held")
            return
        self._states[fingerprint] = status, time.monotonic()
        if status.state is HeadState.WANTED:
            self._wanted.setdefault(fingerprint, status.offset)
            self._woken.set()
            self._note(fingerprint, "wanted")
        elif status.state is HeadState.REFUSED:
            self._wanted.pop(fingerprint, None)
            self._note(fingerprint, status.reason)

    def _note(self, fingerprint: bytes, news: str) -> None:
        """Logs a change of what a server says about a head."""
        if self._logged.get(fingerprint, "held") == news:
            return
        self._logged[fingerprint] = news
        if news in ("wanted", "held"):
            log.info("event=head_%s head=%s", news, fingerprint.hex())
        else:
            log.warning("event=head_refused head=%s reason=%r: the edge answers alone", fingerprint.hex(), news)

    def refusal(self, fingerprint: bytes) -> str | None:
        """Why servers cannot answer with a head now; None if they can, as far as they have said."""
        now_s = time.monotonic()
        if now_s - self._offered.get(fingerprint, -math.inf) < _OFFER_S:
            return "the server has not said yet whether it has the head of the camera"
        if fingerprint in self._wanted:
            return "the server receives the head of the camera first"
        status, at_s = self._states.get(fingerprint, (None, 0.0))
        if status is None:
            return None
        if now_s - at_s > (_REFUSED_S if status.state is HeadState.REFUSED else _COMING_S):
            del self._states[fingerprint]
            return None
        if status.state is HeadState.REFUSED:
            return f"the server refuses the head of the camera: {status.reason}"
        return "the head of the camera is on its way to the server"

    def forget(self) -> None:
        """To be called for a new connection: another server may answer."""
        self._states.clear()
        self._wanted.clear()
        self._offered.clear()

    def announced(self, cameras: Iterable[str]) -> None:
        """To be called when the heads of these cameras have been announced: servers say soon whether they have them."""
        now_s = time.monotonic()
        for camera in cameras:
            for fingerprint in self.offers.fingerprints(camera):
                if fingerprint not in self._states:
                    self._offered[fingerprint] = now_s

    async def run(self) -> None:
        """Sends what servers want, until it is cancelled."""
        while True:
            self._woken.clear()
            while self._wanted:
                await self._send(next(iter(self._wanted)))
            await self._woken.wait()

    async def _send(self, fingerprint: bytes) -> None:
        content, offset = self.offers.content(fingerprint), self._wanted[fingerprint]
        if content is None or len(content) > MAX_HEAD_BYTES:
            reason = f"it has {len(content or b'')} bytes; accepted over a link: up to {MAX_HEAD_BYTES}"
            self._states[fingerprint] = HeadStatus(fingerprint, HeadState.REFUSED, reason=reason), time.monotonic()
            self._note(fingerprint, reason)
            self._wanted.pop(fingerprint, None)
            return
        while offset < len(content) and fingerprint in self._wanted:
            data = content[offset : offset + self._part_bytes()]
            if not await self._pay(fingerprint, self._part_bits(part_message_bytes(len(data)))):
                return
            if await self._send_part(HeadPart(fingerprint, len(content), offset, data)):
                offset += len(data)
            else:
                await asyncio.sleep(_RETRY_S)
        if fingerprint in self._wanted:  # sent whole: the server answers soon
            del self._wanted[fingerprint]
            self._states[fingerprint] = HeadStatus(fingerprint, HeadState.COMING), time.monotonic()

    async def _pay(self, fingerprint: bytes, bits: int) -> bool:
        """Charges the bits as soon as the window has room. False if the head is not wanted any more."""
        while fingerprint in self._wanted:
            if self._charge(bits):
                return True
            await asyncio.sleep(_RETRY_S)
        return False

    def _part_bytes(self) -> int:
        """Bytes of the head in the next part: as many as half a window pays for."""
        window_bits, size = self._window_bits(), MAX_PART_BYTES
        while window_bits is not None and size > _MIN_PART_BYTES and 2 * self._part_bits(size) > window_bits:
            size = max(_MIN_PART_BYTES, size // 2)
        return size
