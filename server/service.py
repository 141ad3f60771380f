"""The server: evidence messages in, replies out.

The event loop receives and queues messages; decoding and the model run in worker threads, one batch at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace

from sagelink.models.labels import labels_fingerprint
from sagelink.monitor.metrics import ServerMetrics
from sagelink.pipeline.channel import Channel, ChannelClosed
from sagelink.pipeline.tasks import background
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import Reply, TopClasses
from sagelink.server.batch import Batcher, BatchLimits, Waiting
from sagelink.server.classify import Classifier
from sagelink.server.head_desk import HeadDesk
from sagelink.server.head_store import HeadStore, ServerHead
from sagelink.server.receive import Received, receive
from sagelink.transport.bundle import parts_of
from sagelink.transport.envelope import MalformedMessage, claimed_seq
from sagelink.transport.evidence_claim import read_claim
from sagelink.transport.head_messages import is_part
from sagelink.transport.link import CameraInfo, Message, ServerLink, node_of
from sagelink.transport.reply_message import encode_reply

log = logging.getLogger(__name__)

_DEADLINE_S = 60.0  # of a camera that has not announced a deadline
_MAX_REFUSALS = 1024  # that wait to be sent
_HEAD_BYTES = 64_000_000  # of heads in memory, where the caller gives no store
_MAX_LOGGED = 1024  # nodes with a logged fault
_NO_CLASSES: TopClasses = ((), ())


class Service:
    """Answers the messages of a link. Every message that is in time and whose frame number is readable gets a reply."""

    def __init__(
        self,
        link: ServerLink,
        classifier: Classifier,
        limits: BatchLimits,
        metrics: ServerMetrics,
        workers: int = 1,
        heads: HeadStore | None = None,
    ) -> None:
        """`heads`: for cameras with own classes; without it, the service begins with none."""
        self._link = link
        self._classifier = classifier
        self._batcher = Batcher(limits)
        self._metrics = metrics
        self._workers = workers
        store = HeadStore(classifier.model, _HEAD_BYTES) if heads is None else heads
        self._heads = HeadDesk(link, store, self._queue, self._refuse)
        self._grid = classifier.model.grid
        self._classes = labels_fingerprint(classifier.model.labels)
        self._changed = asyncio.Event()
        self._ended = False
        self._refusals: Channel[tuple[Message, Reply]] = Channel("refusals", "drop_oldest", capacity=_MAX_REFUSALS)
        self._logged: dict[tuple[str, str], str] = {}  # last fault that was logged, by event and node
        metrics.waiting.set_function(lambda: len(self._batcher))
        metrics.cameras.set_function(lambda: len(link.cameras))
        metrics.heads.set_function(lambda: len(self._heads.store))
        metrics.head_bytes.set_function(lambda: self._heads.store.size_bytes)

    def misfit(self, camera_info: CameraInfo) -> str | None:
        """Why the model of this server cannot serve the camera; None when it can."""
        if (camera_info.side, camera_info.patch_size) != (self._grid.side, self._grid.patch_size):
            return (
                f"the camera has units of {camera_info.patch_size} pixels on {camera_info.side}x{camera_info.side}, "
                f"this server's model of {self._grid.patch_size} pixels on {self._grid.side}x{self._grid.side}"
            )
        if camera_info.heads:
            return self._heads.misfit(camera_info)
        if camera_info.classes != self._classes:
            return "the models of the camera and of this server have different class names"
        return None

    async def run(self) -> None:
        """Runs until the link is closed; messages that have arrived by then are still answered."""
        async with asyncio.TaskGroup() as sending:
            sending.create_task(self._send_refusals())
            try:
                async with background(self._heads.run()):
                    await self._receive()
            finally:
                self._refusals.close()

    async def _receive(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(Worker(f"server-{number}" if self._workers > 1 else "server")))
            try:
                async for message in self._link.messages():
                    self._admit(message)
            finally:
                self._heads.close()
                self._ended = True
                self._changed.set()

    def _admit(self, message: Message) -> None:
        """Queues or refuses a message. It never waits, so messages wait only where their number is bounded: in the
        batcher, or for a head that is on its way."""
        if is_part(message.data):
            self._take_part(message)
            return
        self._metrics.received_bytes.labels(*self._labels(message)).inc(len(message.data))
        self._metrics.parts.labels("arrived").inc(len(parts_of(message.data)))
        self._metrics.parts.labels("lost").inc(message.lost_parts)
        if message.refusal is not None and (claimed := claimed_seq(message.data)) is not None:
            self._refuse(message, claimed, message.refusal)
            return
        try:
            claim = read_claim(message.data)
        except MalformedMessage as error:
            self._count_message("malformed", message)
            self._log("malformed", message, message.refusal or str(error))
            return
        camera_info = self._link.cameras.get(message.sender)
        if camera_info is not None and (reason := self.misfit(camera_info)) is not None:
            self._refuse(message, claim.seq, reason)
            return
        expires_s = message.arrived_s + (camera_info.deadline_s if camera_info else _DEADLINE_S)
        frame = Waiting(message, claim.seq, min(claim.units, self._grid.units), expires_s)
        if claim.head:
            self._heads.admit(frame, claim.head, claim.further, camera_info)
        else:
            self._queue(frame)

    def _queue(self, frame: Waiting) -> None:
        """Queues a frame for the model."""
        self._changed.set()
        for displaced in self._batcher.offer(frame):
            self._count_message("displaced", displaced.message)
            self._refuse(displaced.message, displaced.seq, "the server is busy: a newer frame took its place")

    def _take_part(self, message: Message) -> None:
        try:
            self._heads.take(message.data)
        except MalformedMessage as error:
            self._count_message("malformed", message)
            self._log("malformed", message, str(error))

    def _refuse(self, message: Message, seq: int, reason: str) -> None:
        self._count_message("refused", message)
        self._log("refused", message, reason)
        waited_ms = (time.monotonic() - message.arrived_s) * 1e3
        reply = Reply(seq, reason, (), (), 0, waited_ms, waited_ms, len(self._batcher))
        with contextlib.suppress(ChannelClosed):
            self._refusals.put_now((replace(message, data=b""), reply))

    async def _send_refusals(self) -> None:
        async for message, reply in self._refusals:
            await self._reply(message, reply)

    async def _reply(self, message: Message, reply: Reply) -> None:
        delivered = await self._link.reply(message, encode_reply(reply))
        self._metrics.lost_replies.labels(*self._labels(message)).inc(not delivered)

    def _count_message(self, outcome: str, message: Message) -> None:
        self._metrics.messages.labels(outcome, *self._labels(message)).inc()

    def _labels(self, message: Message) -> tuple[str, str]:
        return self._metrics.camera_labels(message.sender, self._link.cameras)

    def _log(self, event: str, message: Message, reason: str) -> None:
        """Logs a fault of a node when its reason changes, so that a repeated fault does not fill the log."""
        key = event, node_of(message.sender)
        if self._logged.get(key) == reason or (len(self._logged) >= _MAX_LOGGED and key not in self._logged):
            return
        self._logged[key] = reason
        log.warning("stage=server event=%s sender=%r reason=%r", event, message.sender, reason)
        if len(self._logged) == _MAX_LOGGED:
            log.warning("stage=server event=log_full: faults of further nodes are counted, but not logged")

    async def _work(self, worker: Worker) -> None:
        try:
            while (batch := await self._next_batch()) is not None:
                for frame, reply in zip(batch, await worker.call(self._answer, batch), strict=True):
                    if reply.refusal is None:
                        self._count_message("answered", frame.message)
                        await self._reply(frame.message, reply)
                    else:
                        self._refuse(frame.message, frame.seq, reply.refusal)
        finally:
            worker.close()

    async def _next_batch(self) -> list[Waiting] | None:
        """Waits for the next batch; None once the link is closed and no frame waits."""
        while True:
            ready_s, now_s = self._batcher.ready_s(), time.monotonic()
            if ready_s is None and self._ended:
                self._changed.set()  # for the other workers
                return None
            if ready_s is not None and (ready_s <= now_s or self._ended):
                batch, expired = self._batcher.take(now_s)
                for frame in expired:
                    self._count_message("expired", frame.message)
                if batch:
                    return batch
                continue
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if ready_s is None else ready_s - now_s):
                    await self._changed.wait()

    def _answer(self, batch: Sequence[Waiting]) -> list[Reply]:
        """Decodes and classifies a batch; returns a reply for each frame, in order. Blocking."""
        began_s = time.monotonic()
        replies: dict[int, Reply] = {}
        decoded: list[tuple[int, Received]] = []
        for index, frame in enumerate(batch):
            self._metrics.queue_seconds.observe(began_s - frame.message.arrived_s)
            try:
                decoded.append((index, receive(frame.message.data, self._classifier.canvas)))
            except MalformedMessage as error:
                replies[index] = Reply(frame.seq, str(error), (), (), 0, 0.0)
        asked = [(batch[index].head, *batch[index].further) for index, _ in decoded]
        answers = self._classify([received for _, received in decoded], asked)
        batch_s = time.monotonic() - began_s
        for (index, received), (refusal, top, further) in zip(decoded, answers, strict=True):
            queue_ms = (began_s - batch[index].message.arrived_s) * 1e3
            units, waiting = 0 if refusal else len(received.units), len(self._batcher)
            server_ms = queue_ms + batch_s * 1e3
            self._count(batch[index], received, top[0])
            replies[index] = Reply(received.seq, refusal, *top, units, server_ms, queue_ms, waiting, further)
        self._metrics.batch_frames.observe(len(batch))
        self._metrics.batch_seconds.observe(batch_s)
        return [replies[index] for index in range(len(batch))]

    def _count(self, frame: Waiting, received: Received, classes: Sequence[int]) -> None:
        for head in (frame.head, *frame.further):
            if head is not None and classes:
                self._metrics.head_answers.labels(head.label).inc()
        if received.edge_answer is not None and classes:
            same = received.edge_answer.class_id == classes[0]
            self._metrics.edge_answers.labels("yes" if same else "no").inc()

    def _classify(
        self, frames: list[Received], heads: list[tuple[ServerHead | None, ...]]
    ) -> list[tuple[str | None, TopClasses, tuple[TopClasses, ...]]]:
        """The refusal, or the most likely classes, of each frame; and those by its further heads."""
        if not frames:
            return []
        lengths = [len(received.units) for received in frames]
        self._metrics.units.inc(sum(lengths))
        padded = sum(len(group) * max(lengths[index] for index in group) for group in self._classifier.passes(frames))
        self._metrics.padding.inc(padded - sum(lengths))
        # A further head that the server does not have gets no answer.
        here = [(asked[0], *filter(None, asked[1:])) for asked in heads]
        try:
            found = self._classifier.answers(
                frames, [[head.readout if head else None for head in each] for each in here]
            )
        except RuntimeError as error:  # out of memory or a lost device: these frames fail, the server goes on
            log.warning("stage=server event=failed error=%r", str(error))
            return [("the server failed on this frame", _NO_CLASSES, ())] * len(frames)
        answers: list[tuple[str | None, TopClasses, tuple[TopClasses, ...]]] = []
        for asked, (first, *others) in zip(heads, found, strict=True):
            if not _is_finite(first):
                answers.append(("the server model gave no number", _NO_CLASSES, ()))
                continue
            rest = iter(others)
            further = [_NO_CLASSES if head is None else next(rest) for head in asked[1:]]
            answers.append((None, first, tuple(top if _is_finite(top) else _NO_CLASSES for top in further)))
        return answers


def _is_finite(top: TopClasses) -> bool:
    return all(map(math.isfinite, top[1]))
