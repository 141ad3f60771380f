"""Hands what a console observes to its store, once a second, in the store's thread. A slow or full disk delays nothing:
what does not fit is not stored, and counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict

from sagelink.monitor.console.camera_record import CameraRecord, SeenAnswer, month_of
from sagelink.monitor.console.change_desk import KeptChange
from sagelink.monitor.console.console_store import ConsoleStore
from sagelink.monitor.console.events_seen import SeenEvent
from sagelink.monitor.console.picture_shelf import ShelvedPicture
from sagelink.monitor.console.store_batch import AnswerToStore, FrameToStore, PictureToStore, StoreBatch, write_batch
from sagelink.monitor.console.store_pruning import prune_store
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.threads import Worker
from sagelink.transport.evidence_claim import EvidenceClaim
from sagelink.transport.link import Message, node_of

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_PRUNE_EVERY_S = 30.0
_MAX_BYTES = 32_000_000  # that wait for the disk
_EVENT_BYTES = 400  # of an event, about
_PRUNE_PART = 16  # of the store: so much may be added between two looks at its size
_MAX_OPEN = 8192  # frames whose answer may still come


class StoreWriter:
    """A FleetListener."""

    def __init__(self, store: ConsoleStore, worker: Worker, max_bytes: int, keep_s: float) -> None:
        """`max_bytes`, `keep_s`: limits of the store."""
        self._store, self._worker = store, worker
        self._max_bytes, self._keep_s = max_bytes, keep_s
        self._next_id = store.next_id
        self._batch = StoreBatch()
        self._open: OrderedDict[tuple[str, int], int] = OrderedDict()  # ids of frames without an answer
        self._pruned_s = -_PRUNE_EVERY_S
        self._added_bytes = 0  # since then
        self.trouble: str | None = None
        self.not_stored = 0

    def evidence(self, record: CameraRecord, message: Message, claim: EvidenceClaim, wall_s: float) -> None:
        info = record.info
        if info is None or self._batch.size_bytes > _MAX_BYTES:
            self.not_stored += 1
            return
        number, self._next_id = self._next_id, self._next_id + 1
        grid, camera = (info.side, info.patch_size), record.address
        frame = FrameToStore(number, wall_s, node_of(camera), camera, claim.seq, record.last_bits, *grid, message.data)
        self._batch.frames.append(frame)
        self._batch.size_bytes += len(message.data)
        self._open[record.address, claim.seq] = number
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)
        self._note_month(record, wall_s)

    def answer(self, record: CameraRecord, answer: SeenAnswer) -> None:
        number = self._open.pop((record.address, answer.seq), None)
        if number is not None:
            self._batch.answers.append(
                AnswerToStore(number, answer.label, answer.prob, answer.edge, answer.refusal, answer.answer_ms)
            )

    def event(self, record: CameraRecord, event: SeenEvent) -> None:
        if len(self._batch.events) * _EVENT_BYTES > _MAX_BYTES:  # evidence of a flood displaces no event
            self.not_stored += 1
            return
        self._batch.events.append((record.address, event))
        self._batch.size_bytes += _EVENT_BYTES
        self._note_month(record, event.changed_wall_s)

    def picture(self, record: CameraRecord, event_id: str, picture: ShelvedPicture, wall_s: float) -> None:
        if self._batch.size_bytes > _MAX_BYTES:
            self.not_stored += 1
            return
        camera = record.address
        kept = PictureToStore(node_of(camera), wall_s, picture.total_bytes, picture.data)
        before = self._batch.pictures.get((camera, event_id))
        self._batch.size_bytes += len(picture.data) - (len(before.data) if before else 0)
        self._batch.pictures[camera, event_id] = kept
        self._note_month(record, wall_s)

    def change(self, change: KeptChange) -> None:
        self._batch.changes.append(change)

    def _note_month(self, record: CameraRecord, wall_s: float) -> None:
        self._batch.months[record.address] = month_of(wall_s), record.month_bits

    async def run(self) -> None:
        """Writes until it is cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Writes what has been observed, and deletes what is too old or too much."""
        batch, self._batch = self._batch, StoreBatch()
        try:
            await self._worker.call(self._write, batch)
        except SagelinkError as error:
            self.not_stored += len(batch.frames) + len(batch.events) + len(batch.pictures)
            if self.trouble is None:
                log.warning("event=not_stored reason=%r", str(error))
            self.trouble = str(error)
        else:
            if self.trouble is not None:
                log.warning("event=stored_again not_stored=%d", self.not_stored)
            self.trouble = None

    def _write(self, batch: StoreBatch) -> None:
        now_s = time.monotonic()
        is_due = now_s - self._pruned_s > _PRUNE_EVERY_S or _PRUNE_PART * self._added_bytes > self._max_bytes
        if is_due or self.trouble is not None:
            self._pruned_s, self._added_bytes = now_s, 0
            prune_store(self._store, self._max_bytes, time.time() - self._keep_s)
        write_batch(self._store, batch)
        self._added_bytes += batch.size_bytes
