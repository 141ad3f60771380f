"""The heads of a service: finds those of each frame, holds frames whose head is on its way, asks edges for heads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class _Held:
    """A frame that waits for heads, by their fingerprints."""

    frame: Waiting
    first: bytes
    further: tuple[bytes | None, ...]  # None: the camera has not announced it


class HeadDesk:
    """All methods are called from the event loop."""

    def __init__(self, link: ServerLink, store: HeadStore, queue: Callable[[Waiting], None], refuse: Refuse) -> None:
        """`queue` takes a frame whose heads are found; `refuse` one that cannot be answered."""
        self.store = store
        self._link = link
        self._queue = queue
        self._refuse = refuse
        self._intake = HeadIntake(store)
        self._held: deque[_Held] = deque()
        self._seen: dict[str, CameraInfo] = {}  # by camera, the last announcement that was looked at
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

    def admit(
        self, frame: Waiting, head_id: bytes, further_ids: Sequence[bytes], camera_info: CameraInfo | None
    ) -> None:
        """Queues a frame with its heads, or holds it until they are here. Without the head `head_id`, the frame is
        refused; without a further one, the others answer."""
        now_s = time.monotonic()
        fingerprint = self._fingerprint(head_id, camera_info, now_s)
        if fingerprint is None:
            self._refuse(frame.message, frame.seq, f"the camera has not announced head {head_id.hex()}")
            return
        further = tuple(self._fingerprint(each, camera_info, now_s) for each in further_ids)
        self._serve(_Held(frame, fingerprint, further), now_s)

    def _serve(self, held: _Held, now_s: float) -> None:
        """Queues, refuses or holds a frame, as far as its heads are here."""
        frame, first = held.frame, held.first
        heads = {each: self.store.get(each, now_s) for each in (first, *held.further) if each is not None}
        missing = [each for each, head in heads.items() if head is None]
        refusals = {each: reason for each in missing if (reason := self._intake.refusal(each, now_s)) is not None}
        for each, reason in refusals.items():
            self._tell([(frame.message.sender, HeadStatus(each, HeadState.REFUSED, reason=reason))])
        if first in refusals:
            self._refuse(frame.message, frame.seq, refusals[first])
        elif len(refusals) < len(missing):
            for each in missing:
                if each not in refusals:
                    self._want(frame.message.sender, each, now_s)
            self._hold(held)
        else:
            further = tuple(None if each is None else heads[each] for each in held.further)
            self._queue(replace(frame, head=heads[first], further=further))

    def take(self, data: bytes) -> None:
        """Takes a part of a head file. Raises MalformedMessage."""
        part = decode_part(data)
        told = self._intake.take(part, time.monotonic())
        self._tell(told)
        if part.fingerprint not in self._intake.coming:
            self._release(part.fingerprint)

    def close(self) -> None:
        """Refuses the frames that still wait."""
        while self._held:
            frame = self._held.popleft().frame
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

    def _fingerprint(self, head_id: bytes, camera_info: CameraInfo | None, now_s: float) -> bytes | None:
        """The full fingerprint, by the camera's announcement; None if it has not announced the head."""
        if camera_info is None:
            head = self.store.by_id(head_id, now_s)
            return head.fingerprint if head else None
        known = [bytes.fromhex(text) for text in (*camera_info.heads, *camera_info.earlier_heads)]
        return next((fingerprint for fingerprint in known if fingerprint.startswith(head_id)), None)

    def _hold(self, held: _Held) -> None:
        self._held.append(held)
        while len(self._held) > _MAX_HELD or sum(len(each.frame.message.data) for each in self._held) > _MAX_HELD_BYTES:
            oldest = self._held.popleft().frame
            self._refuse(oldest.message, oldest.seq, "the head of the camera is not here yet")

    def _release(self, fingerprint: bytes) -> None:
        """A head is here, or was refused: the frames that waited for it are looked at again."""
        waiting, self._held = self._held, deque()
        for held in waiting:
            if fingerprint in (held.first, *held.further):
                self._serve(held, time.monotonic())
            else:
                self._held.append(held)

    def _expire(self, now_s: float) -> None:
        """Forgets the frames whose answer would come too late."""
        self._held = deque(held for held in self._held if held.frame.expires_s > now_s)

    def _look_ahead(self, now_s: float) -> None:
        """Tells each camera that announces a head whether it is here, and asks for it: before the first frame, so that
        no edge spends bits on a frame that cannot be answered."""
        cameras = self._link.cameras
        for camera in self._seen.keys() - cameras.keys():
            del self._seen[camera]
        for camera, camera_info in [*cameras.items()]:
            if self._seen.get(camera) is camera_info:
                continue
            self._seen[camera] = camera_info
            for text in camera_info.heads:
                self._greet(camera, bytes.fromhex(text), self.misfit(camera_info), now_s)

    def _greet(self, camera: str, fingerprint: bytes, misfit: str | None, now_s: float) -> None:
        if misfit is not None:
            self._tell([(camera, HeadStatus(fingerprint, HeadState.REFUSED, reason=misfit))])
        elif self.store.get(fingerprint, now_s) is not None:
            self._tell([(camera, HeadStatus(fingerprint, HeadState.HELD))])
        else:
            self._want(camera, fingerprint, now_s)

    def _want(self, camera: str, fingerprint: bytes, now_s: float) -> None:
        if self._intake.wait_for(camera, fingerprint, now_s):
            self._sought.put_nowait(fingerprint)
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
