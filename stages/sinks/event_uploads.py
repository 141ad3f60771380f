"""Puts the picture of each event into the queue of pictures that are sent: once, as AVIF of a bounded size.

A sink and a receiver of events. A picture is queued when its event has ended, or after half a minute. Pictures of
private frames are never queued.
"""

from __future__ import annotations

import io
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.files.disk_keeper import DiskKeeper
from sagelink.pipeline.files.picture_queue import PictureQueue
from sagelink.pipeline.types import Verdict
from sagelink.stages.event_rules import Event, EventAction
from sagelink.stages.sinks.event_pictures import picture_path

log = logging.getLogger(__name__)

_AFTER_S = 30.0  # of stream time: a longer event does not wait for its end
_RECENT_S = 86_400.0  # events of a killed run that are younger still get their picture sent
_MAX_PRIVATE = 1000  # events of other systems that are known to be private
_SIDES, _QUALITIES = (640, 480, 320, 224, 160), (70, 55, 40, 25)
_SPEED = 9  # of the AVIF coder; 7 takes six times as long (640x360: 157 ms instead of 26) and saves 4 %


def small_avif(picture: Image.Image, max_bytes: int) -> bytes:
    """The picture as an AVIF file of at most `max_bytes`, as large and as good as that allows; the smallest form where
    none fits."""
    data = b""
    for side in _SIDES:
        small = picture.copy()
        small.thumbnail((side, side))
        for quality in _QUALITIES:
            file = io.BytesIO()
            small.save(file, "AVIF", quality=quality, speed=_SPEED)
            data = file.getvalue()
            if len(data) <= max_bytes:
                return data
            if len(data) > 3 * max_bytes:
                break  # a lower quality alone does not help
    return data


class EventUploads:
    """See the module."""

    def __init__(
        self,
        folder: Path,
        queue: PictureQueue,
        max_bytes: int,
        notify: Callable[[], None],
        keeper: DiskKeeper | None = None,
    ) -> None:
        """`folder`: of the pictures of events. `max_bytes`: of a picture that is sent. `notify`: called after each new
        picture in the queue. `keeper`: makes room on a full disk."""
        self._folder = folder
        self._queue = queue
        self._max_bytes = max_bytes
        self._notify = notify
        self._keeper = keeper
        self._open: dict[str, Event] = {}  # without a picture in the queue, by id
        self._private: OrderedDict[str, None] = OrderedDict()  # ids of events of other systems

    def write(self, verdict: Verdict) -> None:
        frame = verdict.frame
        if frame.event is not None and frame.event.private:
            self._private[frame.event.id] = None
            if len(self._private) > _MAX_PRIVATE:
                self._private.popitem(last=False)
        for event in [*self._open.values()]:
            if event.camera == frame.camera and frame.stream_s - event.start_s > _AFTER_S:
                self._put(event.id, event.camera)

    def take(self, action: EventAction) -> None:
        event = action.event
        if action.action == "withdraw":
            self._open.pop(event.id, None)
            self._store(partial(self._queue.withdraw, event.id))
        elif event.source_event is not None and event.source_event in self._private:
            self._open.pop(event.id, None)
        elif action.action == "open":
            self._open[event.id] = event
        elif action.action == "close" and event.id in self._open:
            self._put(event.id, event.camera)

    def recover(self, records: Iterable[Mapping[str, Any]], now_s: float) -> None:
        """Queues the pictures of the last events of a killed run, given as in events.jsonl. Whether a frame of another
        system's event was private is no longer known, so these are left out."""
        for record in records:
            is_recent = record["wall_s"] > now_s - _RECENT_S and record.get("source_event") is None
            if record["action"] == "close" and is_recent and not self._queue.knows(record["id"]):
                self._put(record["id"], record["camera"])

    def close(self) -> None:
        """The queue stays open: it is sent on after the last event."""

    def _put(self, event_id: str, camera: str) -> None:
        self._open.pop(event_id, None)
        path = picture_path(self._folder, event_id)
        try:
            if path is None or not path.is_file():
                return
            with Image.open(path, formats=("JPEG",)) as picture:
                data = small_avif(picture, self._max_bytes)
        except (OSError, SyntaxError, ValueError) as error:
            log.warning("event=picture_not_queued id=%s reason=%r", event_id, str(error))
            return
        self._store(partial(self._queue.put, event_id, camera, data, time.time()))
        self._notify()

    def _store(self, write: Callable[[], None]) -> None:
        if self._keeper is not None:
            self._keeper.attempt(write)
            return
        try:
            write()
        except OSError as error:
            raise SagelinkError(f"pictures of events cannot be stored: {error.strerror}") from error
