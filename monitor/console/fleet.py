"""All cameras that a console observes: a `CameraObserver` that keeps one `CameraRecord` each, within limits.

Pure: no I/O, no clock but the time arguments and one offset to the time of day. All methods are called from the event
loop.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sagelink.monitor.console.camera_digest import read_digest, read_settings
from sagelink.monitor.console.camera_record import CameraRecord, SeenAnswer
from sagelink.monitor.console.events_seen import SeenEvent, shown
from sagelink.monitor.console.picture_shelf import PictureShelf, ShelvedPicture
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.evidence_claim import EvidenceClaim, read_claim
from sagelink.transport.link import CameraInfo, Message, node_of
from sagelink.transport.picture_parts import PicturePart
from sagelink.transport.reply_message import decode_reply

_MAX_CAMERAS = 20_000
_MAX_NODE_CAMERAS = 5_000
_MAX_NODE_BYTES = 32_000_000  # of messages that are kept for pictures


class ClassNames(Protocol):
    """Names of classes."""

    def label(self, classes: str, head: bytes, class_id: int | None) -> str:
        """`classes`: fingerprint of the model's classes. `head`: id of the camera's own classes; empty: the model's.
        `class_id`: None for none of them."""
        ...

    def knows_head(self, fingerprint: bytes) -> bool:
        """Whether the names of the classes of a head are known."""
        ...

    def add_file(self, content: bytes) -> None:
        """Learns the names of a head file, which may be anything."""
        ...


class FleetListener(Protocol):
    """Receives each observation that may be stored."""

    def evidence(self, record: CameraRecord, message: Message, claim: EvidenceClaim, wall_s: float) -> None: ...

    def answer(self, record: CameraRecord, answer: SeenAnswer) -> None: ...

    def event(self, record: CameraRecord, event: SeenEvent) -> None: ...

    def picture(self, record: CameraRecord, event_id: str, picture: ShelvedPicture, wall_s: float) -> None:
        """What has arrived of the picture of an event."""
        ...


@dataclass(slots=True)
class PastCameras:
    """What an earlier console observed, by camera."""

    months: dict[str, tuple[int, int]] = field(default_factory=dict)  # month and its bits
    events: dict[str, list[SeenEvent]] = field(default_factory=dict)  # oldest first
    pictures: dict[tuple[str, str], ShelvedPicture] = field(default_factory=dict)  # incomplete, by camera and event


class Fleet:
    """`records` maps the address `node/camera` to the record of the camera."""

    def __init__(
        self,
        names: ClassNames,
        count_ignored: Callable[[str], None] = lambda reason: None,
        wall_s: Callable[[], float] = time.time,
        clock_s: Callable[[], float] = time.monotonic,
        max_cameras: int = _MAX_CAMERAS,
        max_node_cameras: int = _MAX_NODE_CAMERAS,
        max_node_bytes: int = _MAX_NODE_BYTES,
    ) -> None:
        """`count_ignored`: called with the reason of each message without an effect. `max_...`: limits of cameras, and
        of the messages of a node."""
        self.records: dict[str, CameraRecord] = {}
        self.version = 0
        self.messages = 0
        self._names = names
        self._count_ignored = count_ignored
        self._wall_s, self._clock_s = wall_s, clock_s
        self._max_cameras, self._max_node_cameras = max_cameras, max_node_cameras
        self._max_node_bytes = max_node_bytes
        self._node_cameras: Counter[str] = Counter()
        self._node_bytes: Counter[str] = Counter()
        self._offline: dict[str, dict[str, None]] = {}  # addresses of cameras that are offline, by node, oldest first
        self._listeners: list[FleetListener] = []
        self._past = PastCameras()
        self.pictures = PictureShelf()

    def listen(self, listener: FleetListener) -> None:
        self._listeners.append(listener)

    def restore(self, past: PastCameras) -> None:
        """What earlier consoles observed of cameras, for those that come."""
        self._past = past
        for (camera, event_id), picture in past.pictures.items():
            self.pictures.put(camera, event_id, picture)

    def wall_of(self, at_s: float) -> float:
        """The time of day of a time of the monotonic clock."""
        return self._wall_s() - self._clock_s() + at_s

    def online(self, camera: str, info: CameraInfo, now_s: float) -> None:
        record = self._known(camera)
        if record is None:
            return
        if not record.is_online:
            record.since_s = now_s
            record.settings = None  # of an earlier run, perhaps
        record.is_online, record.info, record.reason = True, info, None
        self._note_offline(camera, False)
        self._changed(record)

    def offline(self, camera: str, reason: str | None, now_s: float) -> None:
        record = self._known(camera)
        if record is None:
            return
        if record.is_online:
            record.since_s, record.reason = now_s, reason
        record.is_online = False
        self._note_offline(camera, True)
        self._changed(record)

    def evidence(self, message: Message, wire_bits: int) -> None:
        record = self.records.get(message.sender)
        if record is None or message.refusal is not None:
            self.ignored(node_of(message.sender), "not_authentic")
            return
        try:
            claim = read_claim(message.data)
        except MalformedMessage:
            self.ignored(node_of(message.sender), "malformed")
            return
        self.messages += 1
        node, wall_s = node_of(message.sender), self.wall_of(message.arrived_s)
        record.charge(wire_bits, message.arrived_s, wall_s)
        before = record.message_bytes()
        record.keep_message(message, claim, wire_bits, wall_s)
        self._node_bytes[node] += record.message_bytes() - before
        if self._node_bytes[node] > self._max_node_bytes:
            self._forget_messages(node, record)
        for listener in self._listeners:
            listener.evidence(record, message, claim, wall_s)
        self._changed(record)

    def reply(self, camera: str, data: bytes, now_s: float) -> None:
        record = self.records.get(camera)
        try:
            reply = decode_reply(data)
        except MalformedMessage:  # also a message about a head
            return
        if record is None or (claim := record.claim_of(reply.seq)) is None:
            return
        self.messages += 1
        classes = record.info.classes if record.info else ""
        label = shown(self._names.label(classes, claim.head, reply.class_ids[0])) if reply.class_ids else ""
        edge = ""
        if claim.edge_answer is not None:
            edge = shown(self._names.label(classes, claim.head, claim.edge_answer.class_id))
        answer = record.take_reply(reply, label, edge, now_s, self.wall_of(now_s))
        if answer is not None:
            for listener in self._listeners:
                listener.answer(record, answer)
        self._changed(record)

    def event(self, camera: str, record: Mapping[str, Any], wire_bits: int, now_s: float) -> None:
        known = self.records.get(camera)
        if known is None:
            return
        self.messages += 1
        known.charge(wire_bits, now_s, self.wall_of(now_s))
        for event in known.events.take(record, self.wall_of(now_s)):
            if event.state == "withdrawn":
                self.pictures.drop(camera, event.id)
            for listener in self._listeners:
                listener.event(known, event)
            self._changed(known)

    def picture(self, camera: str, part: PicturePart, wire_bits: int, now_s: float) -> None:
        known = self.records.get(camera)
        if known is None:
            return
        self.messages += 1
        wall_s = self.wall_of(now_s)
        known.charge(wire_bits, now_s, wall_s)
        event = known.events.find(part.event)
        picture = None
        if event is not None and event.state != "withdrawn" and not event.has_picture:
            picture = self.pictures.take(camera, part)
        if picture is None:
            self.ignored(node_of(camera), "stray_picture")
            return
        if picture.is_complete:
            known.events.note_picture(part.event)
        for listener in self._listeners:
            listener.picture(known, part.event, picture, wall_s)
        self._changed(known)

    def digest(self, camera: str, record: Mapping[str, Any], wire_bits: int, now_s: float) -> None:
        known = self.records.get(camera)
        if known is None:
            return
        self.messages += 1
        known.charge(wire_bits, now_s, self.wall_of(now_s))
        known.take_digest(read_digest(record), now_s)
        self._changed(known)

    def settings(self, camera: str, values: Mapping[str, Any]) -> None:
        known = self.records.get(camera)
        if known is not None:
            known.settings = read_settings(values)
            self._changed(known)

    def lacks_head(self, fingerprint: bytes) -> bool:
        return not self._names.knows_head(fingerprint)

    def head(self, content: bytes) -> None:
        self._names.add_file(content)

    def ignored(self, node: str, reason: str) -> None:
        self._count_ignored(reason)

    def sweep(self, now_s: float) -> None:
        """Gives up messages whose answer is too late. To be called every second or so."""
        for record in self.records.values():
            before = record.version
            record.sweep(now_s)
            if record.version != before:
                self.version += 1

    def _known(self, camera: str) -> CameraRecord | None:
        """The record of a camera, a new one if there is room; None if there is none."""
        record = self.records.get(camera)
        if record is not None:
            return record
        node = node_of(camera)
        is_full = self._node_cameras[node] >= self._max_node_cameras
        if (is_full or len(self.records) >= self._max_cameras) and not self._forget_offline(node if is_full else None):
            self.ignored(node, "too_many_cameras")
            return None
        record = self.records[camera] = CameraRecord(camera)
        self._node_cameras[node] += 1
        if camera in self._past.months:
            record.restore_month(*self._past.months.pop(camera))
        for event in self._past.events.pop(camera, ()):
            record.events.restore(event)
        return record

    def _forget_offline(self, node: str | None) -> bool:
        """Forgets the camera that is offline longest, of a node if one is given, else of the node with the most."""
        node = node or max(self._offline, key=lambda name: len(self._offline[name]), default="")
        if not (offline := self._offline.get(node)):
            return False
        address = next(iter(offline))
        self._note_offline(address, False)
        self._node_bytes[node] -= self.records.pop(address).message_bytes()
        self._node_cameras[node] -= 1
        if not self._node_cameras[node]:
            del self._node_cameras[node], self._node_bytes[node]
        return True

    def _note_offline(self, camera: str, is_offline: bool) -> None:
        node = node_of(camera)
        if is_offline:
            self._offline.setdefault(node, {})[camera] = None
        elif node in self._offline:
            self._offline[node].pop(camera, None)
            if not self._offline[node]:
                del self._offline[node]

    def _forget_messages(self, node: str, keep: CameraRecord) -> None:
        """Forgets messages of a node but the newest of one camera, until half of its room is free."""
        for address, record in self.records.items():
            if record is not keep and node_of(address) == node and record.message:
                self._node_bytes[node] -= record.message_bytes()
                record.message = None
                if self._node_bytes[node] <= self._max_node_bytes / 2:
                    return

    def _changed(self, record: CameraRecord) -> None:
        record.version += 1
        self.version += 1
