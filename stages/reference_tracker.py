"""What the edge knows that the server remembers of a camera: units by an acknowledged message, as they looked then.

A unit counts as there while it looks as it did and is not too old. Where the server turns out not to have what it
acknowledged (another server answers, or it was restarted), the edge sends messages that stand alone for a while, twice
as long each time: behind a broker that deals frames out to several servers, memory so comes to rest. Pure: no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.types import Pixels, Reference, Reply, Units
from sagelink.transport.codecs import Patches, cut_units
from sagelink.transport.delta_message import NO_UNITS, NO_REFERENCE, reference_name

_CHANGED = 6.0  # grey levels, in the mean over a unit
_PENDING = 64
_LONGEST_REST = 64  # frames


@dataclass(frozen=True, slots=True)
class _State:
    """What the server holds once it has answered a message."""

    seq: int  # the message's frame
    name: bytes
    units: Units  # (K,) ascending
    looks: Patches  # of each when it was sent
    sent_s: NDArray[np.float64]  # (K,)


@dataclass(frozen=True, slots=True)
class _Pending:
    completed: _State
    alone: _State  # if the server has not what the message completes


class ReferenceTracker:
    """Of one camera."""

    def __init__(self, patch_size: int, age_s: float, least_new: int = 1) -> None:
        """`age_s`: a unit counts for so long; `least_new`: units of the grid that are always left to send."""
        self._patch_size = patch_size
        self._age_s = age_s
        self._least_new = least_new
        self._state = _State(-1, NO_REFERENCE, NO_UNITS, _no_looks(patch_size), np.empty(0))
        self._pending: dict[int, _Pending] = {}
        self._rest = 0  # frames that are still to stand alone
        self._next_rest = 1

    def reference_for(self, picture: Pixels, now_s: float) -> Reference | None:
        """What a message about this frame may build on; None: it stands alone."""
        if self._rest:
            self._rest -= 1
            return None
        state = self._state
        places = self._holding(picture, now_s)
        room = (picture.shape[0] // self._patch_size) ** 2 - self._least_new
        if len(places) > room:  # the oldest are sent again
            places = np.sort(places[np.argsort(-state.sent_s[places], kind="stable")[: max(room, 0)]])
        return Reference(state.name if len(places) else NO_REFERENCE, state.units[places])

    def register_sent(
        self, seq: int, message: bytes, base: Reference, units: Units, picture: Pixels, now_s: float
    ) -> None:
        """A message with `units` that completes `base` may be on its way."""
        looks, times = cut_units(picture, units, self._patch_size), np.full(len(units), now_s)
        alone = completed = _State(seq, reference_name(message, completed=False), units, looks, times)
        if len(base.units):
            state = self._state
            places = np.searchsorted(state.units, base.units)
            together = np.concatenate([state.units[places], units])
            order = np.argsort(together)
            completed = _State(
                seq,
                reference_name(message, completed=True),
                together[order],
                np.concatenate([state.looks[places], looks])[order],
                np.concatenate([state.sent_s[places], times])[order],
            )
        self._pending[seq] = _Pending(completed, alone)
        while len(self._pending) > _PENDING:
            del self._pending[next(iter(self._pending))]

    def acknowledge(self, reply: Reply) -> None:
        """A reply to whichever message; the number of units says whether the server had what was built on."""
        pending = self._pending.pop(reply.seq, None)
        if pending is None:
            return
        built_on = pending.completed is not pending.alone
        if reply.refusal is not None:
            self._lacks()
        elif reply.units == len(pending.completed.units):
            self._acknowledge(pending.completed)
            if built_on:
                self._next_rest = max(1, self._next_rest // 2)
        else:
            self._acknowledge(pending.alone)
            self._lacks()

    def _acknowledge(self, state: _State) -> None:
        if state.seq > self._state.seq:  # else: replies have overtaken one another
            self._state = state

    def _lacks(self) -> None:
        self._rest = self._next_rest
        self._next_rest = min(2 * self._next_rest, _LONGEST_REST)

    def _holding(self, picture: Pixels, now_s: float) -> NDArray[np.intp]:
        """Places in the state of the units that still hold."""
        state = self._state
        if not len(state.units):
            return NO_UNITS
        now = cut_units(picture, state.units, self._patch_size)
        moved = np.abs(now.astype(np.int16) - state.looks).mean((1, 2, 3))
        age_s = now_s - state.sent_s
        return np.flatnonzero((moved <= _CHANGED) & (age_s >= 0) & (age_s <= self._age_s))


def _no_looks(patch_size: int) -> Patches:
    return np.empty((0, patch_size, patch_size, 3), np.uint8)
