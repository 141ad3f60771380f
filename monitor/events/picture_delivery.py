"""Sends pictures of events from their queue, part by part, while neither an event nor evidence needs the uplink."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Protocol, runtime_checkable

from sagelink.monitor.events.alert_charges import AlertCharges
from sagelink.pipeline.backoff import Backoff
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.files.picture_queue import PictureQueue, WaitingPicture
from sagelink.pipeline.threads import Worker
from sagelink.transport.picture_parts import PicturePart

log = logging.getLogger(__name__)

_FIRST_WAIT_S, _MAX_WAIT_S = 1.0, 300.0  # an attempt costs bits even if nobody has subscribed
_LOOK_S = 0.1  # between two looks at whether there are bits that nothing else needs
_LAST_WRITE_S = 0.5


@runtime_checkable
class PictureLink(Protocol):
    """A link that carries pictures of events besides evidence."""

    def pay_picture(self, camera: str, event: str, rest_bytes: int) -> int:
        """Charges a part of a picture, as long as nothing else needs the bits. Returns how many of its `rest_bytes`
        the part may have; 0 for none now."""
        ...

    async def connected(self) -> None:
        """Waits until the link is connected."""
        ...

    async def publish_picture(self, camera: str, part: PicturePart) -> str | None:
        """Publishes a part that is charged. Returns None when the broker has it, or why not. Raises ConnectionError
        when the connection ends first."""
        ...


class PictureDelivery:
    """Runs in the event loop; `notify` may be called in any thread."""

    def __init__(self, queue: PictureQueue, link: PictureLink, alerts: AlertCharges) -> None:
        """`alerts`: events that wait go first."""
        self._queue = queue
        self._link = link
        self._alerts = alerts
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trouble: str | None = None
        self._backoff = Backoff(_FIRST_WAIT_S, _MAX_WAIT_S)

    def notify(self) -> None:
        """There is a new picture in the queue."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        disk = Worker("event-uploads")
        try:
            while True:
                self._news.clear()
                try:
                    trouble = await self._step(disk)
                except (OSError, SagelinkError) as error:  # the disk is full or fails: it may recover
                    trouble = str(error)
                self._note(trouble)
                if trouble is not None:
                    await asyncio.sleep(self._backoff.next_s())
                else:
                    self._backoff.reset()
        finally:
            written = threading.Event()
            disk.close(written.set)
            written.wait(_LAST_WRITE_S)

    async def _step(self, disk: Worker) -> str | None:
        """Sends one part, or waits for a picture. Returns why a part was not delivered."""
        picture = await disk.call(self._queue.next)
        if picture is None:
            await self._news.wait()
            return None
        await self._link.connected()
        part_bytes = await self._paid_bytes(picture)
        offset = picture.sent_bytes
        part = PicturePart(picture.event, len(picture.data), offset, picture.data[offset : offset + part_bytes])
        try:
            refusal = await self._link.publish_picture(picture.camera, part)
        except ConnectionError as error:
            return str(error)
        if refusal is None:
            await disk.call(self._queue.note_sent, picture.event, offset + part_bytes)
        return refusal

    async def _paid_bytes(self, picture: WaitingPicture) -> int:
        """Waits until a part is charged; returns its size."""
        rest_bytes = len(picture.data) - picture.sent_bytes
        while True:
            if not self._alerts.pending():
                part_bytes = self._link.pay_picture(picture.camera, picture.event, rest_bytes)
                if part_bytes:
                    return part_bytes
            await asyncio.sleep(_LOOK_S)

    def _note(self, trouble: str | None) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("event=pictures_delivered")
        else:
            log.warning("event=pictures_wait reason=%r", trouble)
