"""Tracks which units of a camera the server remembers, so that later messages send only the others. Pure: no clock.

A unit counts as remembered after the server has acknowledged its message, while the unit looks as it did then and is
not too old. The server may turn out to lack what it acknowledged: another server answers, or the server was restarted.
Then the edge sends standalone messages for a number of frames, which doubles with each failure; so behind a broker that
deals frames out to several servers, the edge nearly stops using the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import Pixels, Reference, Reply, Units
from sagelink.transport.codecs import Patches, cut_units
from sagelink.transport.delta_message import NO_REFERENCE, NO_UNITS, reference_name

_CHANGED = 6.0  # grey levels: a unit whose mean absolute difference is larger has changed
_MAX_PENDING = 64  # messages without a reply; with more, the oldest are given up
_MAX_PAUSE = 64  # frames


@dataclass(frozen=True, slots=True)
class _ServerMemory:
    """The units that the server remembers once it has answered a message."""

    seq: int  # the message's frame
    name: bytes
    units: Units  # (K,) ascending
    patches: Patches  # (K, P, P, 3): each unit when it was sent
    sent_s: NDArray[np.float64]  # (K,)


@dataclass(frozen=True, slots=True)
class _PendingMessage:
    completed: _ServerMemory  # when the server has the reference
    standalone: _ServerMemory  # when it has not


class ReferenceTracker:
    """The server's memory of one camera, as far as the edge knows it."""

    def __init__(self, patch_size: int, age_s: float, least_new: int = 1) -> None:
        """`age_s`: a unit counts as remembered for this time. `least_new`: number of units that are always sent."""
        self._patch_size = patch_size
        self._age_s = age_s
        self._least_new = least_new
        no_patches = np.empty((0, patch_size, patch_size, 3), np.uint8)
        self._memory = _ServerMemory(-1, NO_REFERENCE, NO_UNITS, no_patches, np.empty(0))
        self._pending: dict[int, _PendingMessage] = {}  # by seq
        self._pause_frames = 0  # frames that still get a standalone message
        self._next_pause = 1

    def reference_for(self, picture: Pixels, now_s: float) -> Reference | None:
        """The remembered units that a message about `picture` (S, S, 3) may build on; None: the message is standalone.

        To be called once per frame.
        """
        if self._pause_frames:
            self._pause_frames -= 1
            return None
        memory = self._memory
        places = self._unchanged(picture, now_s)
        max_units = (picture.shape[0] // self._patch_size) ** 2 - self._least_new
        if len(places) > max_units:  # the oldest units are sent again
            places = np.sort(places[np.argsort(-memory.sent_s[places], kind="stable")[: max(max_units, 0)]])
        return Reference(memory.name if len(places) else NO_REFERENCE, memory.units[places])

    def register_sent(
        self, seq: int, message: bytes, reference: Reference, units: Units, picture: Pixels, now_s: float
    ) -> None:
        """Registers a message that adds `units` of `picture` to `reference`; the message may still get lost."""
        patches, times = cut_units(picture, units, self._patch_size), np.full(len(units), now_s)
        standalone = completed = _ServerMemory(seq, reference_name(message, completed=False), units, patches, times)
        if len(reference.units):
            memory = self._memory
            places = np.searchsorted(memory.units, reference.units)
            together = np.concatenate([memory.units[places], units])
            order = np.argsort(together)
            completed = _ServerMemory(
                seq,
                reference_name(message, completed=True),
                together[order],
                np.concatenate([memory.patches[places], patches])[order],
                np.concatenate([memory.sent_s[places], times])[order],
            )
        self._pending[seq] = _PendingMessage(completed, standalone)
        while len(self._pending) > _MAX_PENDING:
            del self._pending[next(iter(self._pending))]

    def acknowledge(self, reply: Reply) -> None:
        """Takes in a reply to any message; its number of units says whether the server had the reference."""
        pending = self._pending.pop(reply.seq, None)
        if pending is None:
            return
        used_reference = pending.completed is not pending.standalone
        if reply.refusal is not None:
            self._pause()
        elif reply.units == len(pending.completed.units):
            self._remember(pending.completed)
            if used_reference:
                self._next_pause = max(1, self._next_pause // 2)
        else:
            self._remember(pending.standalone)
            self._pause()

    def _remember(self, memory: _ServerMemory) -> None:
        if memory.seq > self._memory.seq:  # otherwise a reply to a later message came first
            self._memory = memory

    def _pause(self) -> None:
        """The server lacks what it acknowledged: the next frames are standalone."""
        self._pause_frames = self._next_pause
        self._next_pause = min(2 * self._next_pause, _MAX_PAUSE)

    def _unchanged(self, picture: Pixels, now_s: float) -> NDArray[np.intp]:
        """Places in the memory of the units that look as they did and are not too old."""
        memory = self._memory
        if not len(memory.units):
            return NO_UNITS
        patches = cut_units(picture, memory.units, self._patch_size)
        change = np.abs(patches.astype(np.int16) - memory.patches).mean((1, 2, 3))
        age_s = now_s - memory.sent_s
        return np.flatnonzero((change <= _CHANGED) & (age_s >= 0) & (age_s <= self._age_s))
