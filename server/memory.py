"""What the server remembers of its cameras: the units that it classified last, by the name that both sides compute.

A camera is told by its address and finds only what came from there. The store forgets what was not used for longest;
forgetting is always safe, because a message that completes something forgotten is classified alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, replace

import numpy as np

from sagelink.pipeline.types import Units
from sagelink.transport.codecs import Patches, Tokens

_OF_A_CAMERA = 4  # the newest: those of messages on their way, and what they complete
_UNUSED_S = 120.0


@dataclass(frozen=True, slots=True)
class Held:
    """Units that arrived."""

    units: Units  # (K,) ascending
    content: Patches | Tokens
    used_s: float  # monotonic clock

    @property
    def size_bytes(self) -> int:
        return int(self.content.nbytes + self.units.nbytes)

    def part(self, kept: Units) -> Patches | Tokens | None:
        """The content of `kept`; None unless all of them are here."""
        places = np.searchsorted(self.units, kept)
        if not np.isin(kept, self.units).all():
            return None
        content: Patches | Tokens = self.content[places]
        return content


class ReferenceStore:
    """Of all cameras. Safe to use from several threads; time comes in as an argument."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of units; 0 remembers nothing."""
        self._most_bytes = most_bytes
        self._held: OrderedDict[tuple[str, bytes], Held] = OrderedDict()  # least recently used first
        self._names: dict[str, deque[bytes]] = {}  # by camera, oldest first
        self._lock = threading.Lock()
        self.size_bytes = 0

    def recall(self, camera: str, name: bytes, now_s: float) -> Held | None:
        with self._lock:
            self._forget_before(now_s - _UNUSED_S)
            held = self._held.get((camera, name))
            if held is not None:
                self._held[camera, name] = replace(held, used_s=now_s)
                self._held.move_to_end((camera, name))
            return held

    def keep(self, camera: str, name: bytes, units: Units, content: Patches | Tokens, now_s: float) -> None:
        with self._lock:
            self._drop(camera, name)
            # A copy: decoded content may be a view of the message that it came in.
            held = Held(units, content.copy(), now_s)
            if held.size_bytes > self._most_bytes:
                return
            self._held[camera, name] = held
            self.size_bytes += held.size_bytes
            names = self._names.setdefault(camera, deque())
            names.append(name)
            if len(names) > _OF_A_CAMERA:
                self._drop(camera, names[0])
            self._forget_before(now_s - _UNUSED_S)
            while self.size_bytes > self._most_bytes:
                self._drop(*next(iter(self._held)))

    def _forget_before(self, oldest_s: float) -> None:
        while self._held and next(iter(self._held.values())).used_s < oldest_s:
            self._drop(*next(iter(self._held)))

    def _drop(self, camera: str, name: bytes) -> None:
        held = self._held.pop((camera, name), None)
        if held is None:
            return
        self.size_bytes -= held.size_bytes
        self._names[camera].remove(name)
        if not self._names[camera]:
            del self._names[camera]
