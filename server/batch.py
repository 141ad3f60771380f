"""Decides which frames share a forward pass: queues per node and camera in, batches out. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from sagelink.server.head_store import ServerHead
from sagelink.transport.link import Message, node_of

_NODE_SHARE = 8  # one node may use this fraction of the bytes


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of a batch and of the frames that wait for it."""

    max_units: int  # per batch, padding included; a single frame may have more
    max_wait_s: float  # longest wait of a frame for others
    per_camera: int  # longest queue of one camera, in frames
    max_bytes: int = 256_000_000  # of the messages of all waiting frames; one node may use an eighth


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame that waits for the model."""

    message: Message
    seq: int
    units: int
    expires_s: float  # monotonic clock; a later answer is useless
    head: ServerHead | None = None  # to answer with; None: the model's own classes
    further: tuple[ServerHead | None, ...] = ()  # to answer with too; None: the server does not get this one


class _NodeQueue:
    """The waiting frames of one node: a queue per camera, and their bytes."""

    def __init__(self) -> None:
        self.cameras: OrderedDict[str, deque[Waiting]] = OrderedDict()  # only cameras with frames; first = next turn
        self.size_bytes = 0

    def append(self, frame: Waiting) -> None:
        self.cameras.setdefault(frame.message.sender, deque()).append(frame)
        self.size_bytes += len(frame.message.data)

    def pop(self, camera: str) -> Waiting:
        """Removes and returns the oldest frame of a camera."""
        queue = self.cameras[camera]
        frame = queue.popleft()
        self.size_bytes -= len(frame.message.data)
        if not queue:
            del self.cameras[camera]
        return frame


class Batcher:
    """A batch takes one frame of each node in turn, and of each camera of the node in turn: a node with many cameras or
    a busy camera delays no other node. Waiting bytes are bounded: for a node, and in total."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._nodes: OrderedDict[str, _NodeQueue] = OrderedDict()  # only nodes with frames; first = next turn
        self._frames = 0
        self._units = 0
        self._since_s = 0.0  # arrival of the frame that has waited longest, or earlier
        self.size_bytes = 0

    def __len__(self) -> int:
        return self._frames

    def offer(self, frame: Waiting) -> list[Waiting]:
        """Adds a frame. Removes and returns the frames that it displaces: the oldest one of its camera when that queue
        is full, frames of its node when the node uses up its bytes, frames of the largest node when all bytes are."""
        if not self._frames:
            self._since_s = frame.message.arrived_s
        camera, name = frame.message.sender, node_of(frame.message.sender)
        node = self._nodes.get(name, _NodeQueue())
        size_bytes, displaced = len(frame.message.data), []
        if len(node.cameras.get(camera, ())) >= self._limits.per_camera:
            displaced.append(self._pop(name, camera))
        while node.cameras and node.size_bytes + size_bytes > self._limits.max_bytes // _NODE_SHARE:
            displaced.append(self._pop_largest(name))
        while self._frames and self.size_bytes + size_bytes > self._limits.max_bytes:
            displaced.append(self._pop_largest(max(self._nodes, key=lambda other: self._nodes[other].size_bytes)))
        self._nodes.setdefault(name, node).append(frame)
        self._frames += 1
        self._units += frame.units
        self.size_bytes += size_bytes
        return displaced

    def ready_s(self) -> float | None:
        """When the next batch is due (monotonic clock), possibly in the past; None when no frame waits."""
        if not self._frames:
            return None
        full = self._units >= self._limits.max_units
        return self._since_s if full else self._since_s + self._limits.max_wait_s

    def take(self, now_s: float) -> tuple[list[Waiting], list[Waiting]]:
        """Removes and returns the next batch, and the expired frames met on the way."""
        batch: list[Waiting] = []
        expired: list[Waiting] = []
        longest = 0
        while self._nodes:
            name, node = next(iter(self._nodes.items()))
            camera, queue = next(iter(node.cameras.items()))
            frame = queue[0]
            if frame.expires_s > now_s:
                longest = max(longest, frame.units)
                if batch and (len(batch) + 1) * longest > self._limits.max_units:
                    break
                batch.append(self._pop(name, camera))
                self._end_turn(name, camera)
            else:
                expired.append(self._pop(name, camera))
        return batch, expired

    def _end_turn(self, name: str, camera: str) -> None:
        """The next turns of a node and of its camera come after those of all others."""
        if name in self._nodes:
            self._nodes.move_to_end(name)
            if camera in self._nodes[name].cameras:
                self._nodes[name].cameras.move_to_end(camera)

    def _pop_largest(self, name: str) -> Waiting:
        cameras = self._nodes[name].cameras
        return self._pop(name, max(cameras, key=lambda camera: len(cameras[camera])))

    def _pop(self, name: str, camera: str) -> Waiting:
        node = self._nodes[name]
        frame = node.pop(camera)
        if not node.cameras:
            del self._nodes[name]
        self._frames -= 1
        self._units -= frame.units
        self.size_bytes -= len(frame.message.data)
        return frame


def passes(lengths: Sequence[int], max_padding: float) -> list[list[int]]:
    """Groups frames of similar length: lists of indices into `lengths`, one per forward pass, longest frames first.

    Padding is at most `max_padding` times the units of a pass; with 0 only frames of equal length share a pass.
    """
    groups: list[list[int]] = []
    units = 0  # of the last pass, without padding
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        units += lengths[index]
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= (1 + max_padding) * units:
            groups[-1].append(index)
        else:
            groups.append([index])
            units = lengths[index]
    return groups
