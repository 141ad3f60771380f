"""Decides which frames share a forward pass: queues per camera in, batches out. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from sagelink.transport.link import Message


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of a batch: size, and waiting time."""

    max_units: int  # per batch, padding included; a single frame may have more
    max_wait_s: float  # longest wait of a frame for others
    per_camera: int  # longest queue of one camera, in frames


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame that waits for the model."""

    message: Message
    seq: int
    units: int
    expires_s: float  # monotonic clock; a later answer is useless


class Batcher:
    """One queue per camera. A batch takes one frame of each camera in turn, so that a busy camera delays no other."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._queues: OrderedDict[str, deque[Waiting]] = OrderedDict()  # only cameras with frames; first = next turn
        self._frames = 0
        self._units = 0
        self._since_s = 0.0  # arrival of the frame that has waited longest, or earlier

    def __len__(self) -> int:
        return self._frames

    def offer(self, frame: Waiting) -> Waiting | None:
        """Adds a frame; when the queue of its camera is full, removes and returns the oldest frame there."""
        if not self._frames:
            self._since_s = frame.message.arrived_s
        queue = self._queues.setdefault(frame.message.sender, deque())
        displaced = self._pop(queue) if len(queue) >= self._limits.per_camera else None
        queue.append(frame)
        self._frames += 1
        self._units += frame.units
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
        while self._queues:
            sender, queue = next(iter(self._queues.items()))
            frame = queue[0]
            if frame.expires_s > now_s:
                longest = max(longest, frame.units)
                if batch and (len(batch) + 1) * longest > self._limits.max_units:
                    break
                batch.append(frame)
                self._queues.move_to_end(sender)  # its next turn is after those of all other cameras
            else:
                expired.append(frame)
            self._pop(queue)
            if not queue:
                del self._queues[sender]
        return batch, expired

    def _pop(self, queue: deque[Waiting]) -> Waiting:
        frame = queue.popleft()
        self._frames -= 1
        self._units -= frame.units
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
