"""Which frames share a forward pass. Pure: time comes in as an argument."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from sagelink.transport.link import Message


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is taken, and how large it is."""

    max_units: int  # in a batch, padding included; a single frame may have more
    max_wait_s: float  # longest that a frame waits for others
    per_camera: int  # frames of one camera that may wait


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame that waits for the model."""

    message: Message
    seq: int
    units: int
    expires_s: float  # monotonic clock: an answer after that is of no use


class Batcher:
    """A queue for each camera; a batch takes one frame of each in turn, so that none starves behind a greedy one."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._queues: OrderedDict[str, deque[Waiting]] = OrderedDict()  # only cameras with frames; first = next turn
        self._frames = 0
        self._units = 0
        self._since_s = 0.0  # when the frame came that has waited longest, or earlier

    def __len__(self) -> int:
        return self._frames

    def offer(self, frame: Waiting) -> Waiting | None:
        """Adds a frame; returns the oldest of its camera when that had no place left."""
        if not self._frames:
            self._since_s = frame.message.arrived_s
        queue = self._queues.setdefault(frame.message.sender, deque())
        displaced = self._pop(queue) if len(queue) >= self._limits.per_camera else None
        queue.append(frame)
        self._frames += 1
        self._units += frame.units
        return displaced

    def ready_s(self) -> float | None:
        """When a batch is to be taken: in the past when it is due; None when nothing waits."""
        if not self._frames:
            return None
        full = self._units >= self._limits.max_units
        return self._since_s if full else self._since_s + self._limits.max_wait_s

    def take(self, now_s: float) -> tuple[list[Waiting], list[Waiting]]:
        """The next batch, and the frames met on the way that are past their deadline."""
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
                self._queues.move_to_end(sender)  # its next turn comes after everybody else's
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


def passes(lengths: Sequence[int], most_padding: float) -> list[list[int]]:
    """Indices of a batch's frames, those of similar length together: one list a forward pass, longest frames first.

    In none is the padding more than `most_padding` of the units; 0 puts only equal lengths together.
    """
    found: list[list[int]] = []
    units = 0  # of the last pass, without padding
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        units += lengths[index]
        if found and lengths[found[-1][0]] * (len(found[-1]) + 1) <= (1 + most_padding) * units:
            found[-1].append(index)
        else:
            found.append([index])
            units = lengths[index]
    return found
