"""The heads of a service: finds those of each frame, holds frames whose head is on its way, asks edges for heads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from sagelink.server.batch import Waiting
from sagelink.server.head_intake import HeadIntake, Told
from sagelink.server.head_store import HeadStore
from sagelink.transport.head_messages import HeadState, HeadStatus, decode_part, encode_status
from sagelink.transport.link import CameraInfo, Message, ServerLink

log = logging.getLogger(__name__)

_LOOK_S = 0.25  # between two looks at the announcements
_MAX_HELD = 256  # frames that wait for a head
_MAX_HELD_BYTES = 32_000_000

Refuse = Callable[[Message, int, str], None]


class HeadDesk:
    """All methods are called from the event loop."""

    def __init__(self, link: ServerLink, store: HeadStore, queue: Callable[[Waiting], None], refuse: Refuse) -> None:
        """`queue` takes a frame whose heads are found; `refuse` one that cannot be answered."""
        self.store = store
        self._link = link
        self._queue = queue
        self._refuse = refuse
        self._intake = HeadIntake(store)
        self._held: deque[tuple[Waiting, tuple[bytes, ...]]] = deque()  # frames, and the fingerprints of their heads
        self._seen: dict[bytes, None] = {}  # heads that have been announced: each is asked for once before a frame
        self._told: asyncio.Queue[Told] = asyncio.Queue(4096)
        self._sought: asyncio.Queue[bytes] = asyncio.Queue()

    def misfit(self, camera_info: CameraInfo) -> str | None:
        """Why no head of the camera can be used here; None if they may fit."""
        if camera_info.backbone == self.store.backbone:
            return None
        return (
            f"the camera's head was taught on a server model with backbone {camera_info.backbone or 'unknown'}, this "
            f"server's model has backbone {self.store.backbone}"
        )

    def admit(self, frame: Waiting, head_ids: Sequence[bytes], camera_info: CameraInfo | None) -> None:
        """Queues a frame with its heads, holds it until they are here, or refuses it."""
        now_s = time.monotonic()
        fingerprints = self._fingerprints(head_ids, camera_info, now_s)
        if isinstance(fingerprints, str):
            self._refuse(frame.message, frame.seq, fingerprints)
            return
        missing = [fingerprint for fingerprint in fingerprints if self.store.get(fingerprint, now_s) is None]
        for fingerprint in missing:
            if (reason := self._intake.refusal(fingerprint, now_s)) is not None:
                self._tell([(frame.message.sender, HeadStatus(fingerprint, HeadState.REFUSED, reason=reason))])
                self._refuse(frame.message, frame.seq, reason)
                return
            self._want(frame.message.sender, fingerprint, now_s)
        if missing:
            self._hold(frame, fingerprints)
        else:
            self._queue(self._with_heads(frame, fingerprints, now_s))

    def take(self, data: bytes) -> None:
        """Takes a part of a head file. Raises MalformedMessage."""
        part = decode_part(data)
        told = self._intake.take(part, time.monotonic())
        self._tell(told)
        if part.fingerprint not in self._intake.coming:
            self._release(part.fingerprint, next((status.reason for _, status in told if status.reason), None))

    def close(self) -> None:
        """Refuses the frames that still wait."""
        while self._held:
            frame, _ = self._held.popleft()
            self._refuse(frame.message, frame.seq, "the server ends")

    async def run(self) -> None:
        """Looks for the heads of the cameras that announce themselves, and tells edges, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_told())
            group.create_task(self._seek())
            while True:
                await asyncio.sleep(_LOOK_S)
                now_s = time.monotonic()
                self._look_ahead(now_s)
                self._tell(self._intake.remind(now_s))
                self._expire(now_s)

    def _fingerprints(
        self, head_ids: Sequence[bytes], camera_info: CameraInfo | None, now_s: float
    ) -> tuple[bytes, ...] | str:
        """The full fingerprints of these ids, by the camera's announcement; or why there are none."""
        found = []
        for head_id in head_ids:
            if camera_info is None:
                head = self.store.by_id(head_id, now_s)
                known = [head.fingerprint] if head else []
            else:
                known = [bytes.fromhex(text) for text in camera_info.heads if text.startswith(head_id.hex())]
            if not known:
                return f"the camera has not announced head {head_id.hex()}"
            found.append(known[0])
        return tuple(found)

    def _with_heads(self, frame: Waiting, fingerprints: Sequence[bytes], now_s: float) -> Waiting:
        heads = tuple(head for head in (self.store.get(one, now_s) for one in fingerprints) if head is not None)
        return Waiting(frame.message, frame.seq, frame.units, frame.expires_s, heads)

    def _hold(self, frame: Waiting, fingerprints: tuple[bytes, ...]) -> None:
        self._held.append((frame, fingerprints))
        while len(self._held) > _MAX_HELD or sum(len(held.message.data) for held, _ in self._held) > _MAX_HELD_BYTES:
            oldest, _ = self._held.popleft()
            self._refuse(oldest.message, oldest.seq, "the head of the camera is not here yet")

    def _release(self, fingerprint: bytes, refusal: str | None) -> None:
        """A head is here, or was refused: so are the frames that waited for it."""
        waiting, self._held = self._held, deque()
        now_s = time.monotonic()
        for frame, fingerprints in waiting:
            if fingerprint in fingerprints and refusal is not None:
                self._refuse(frame.message, frame.seq, refusal)
            elif all(self.store.get(one, now_s) for one in fingerprints):
                self._queue(self._with_heads(frame, fingerprints, now_s))
            else:
                self._held.append((frame, fingerprints))

    def _expire(self, now_s: float) -> None:
        self._held = deque(held for held in self._held if held[0].expires_s > now_s)

    def _look_ahead(self, now_s: float) -> None:
        """Asks for a head once when a camera announces it, so that it is here before the first frame."""
        for camera, camera_info in [*self._link.cameras.items()]:
            for text in camera_info.heads:
                fingerprint = bytes.fromhex(text)
                if fingerprint in self._seen or self.misfit(camera_info) is not None:
                    continue
                if len(self._seen) > 100_000:
                    self._seen.clear()
                self._seen[fingerprint] = None
                if self.store.get(fingerprint, now_s) is None:
                    self._want(camera, fingerprint, now_s)

    def _want(self, camera: str, fingerprint: bytes, now_s: float) -> None:
        if self._intake.wait_for(camera, fingerprint, now_s):
            self._sought.put_nowait(fingerprint)  # has room: only so many heads are on their way
        else:
            self._tell([(camera, HeadStatus(fingerprint, HeadState.COMING))])

    async def _seek(self) -> None:
        """Looks for each head at the transport; when it is not there, an edge is asked."""
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._fetch(await self._sought.get()))

    async def _fetch(self, fingerprint: bytes) -> None:
        try:
            wait_s = await self._link.seek_head(fingerprint)
            if wait_s:
                await asyncio.sleep(wait_s)
            self._tell(self._intake.ask(fingerprint, time.monotonic()))
            while fingerprint in self._intake.coming:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)
        finally:
            await self._link.end_seeking(fingerprint)

    def _tell(self, told: Sequence[Told]) -> None:
        for camera, status in told:
            if status.state in (HeadState.HELD, HeadState.REFUSED):
                log.info(
                    "event=head_%s head=%s camera=%s reason=%r",
                    status.state.name.lower(), status.fingerprint.hex(), camera, status.reason,
                )  # fmt: skip
            if not self._told.full():
                self._told.put_nowait((camera, status))

    async def _send_told(self) -> None:
        while True:
            camera, status = await self._told.get()
            await self._link.send_head_status(camera, encode_status(status))
