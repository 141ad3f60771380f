"""Stores the last classified units of each camera, as references for later delta messages.

The key is the camera's address and a name that both sides compute. A camera finds only its own units. When memory is
full, the least recently used units are deleted, of a node that uses more than its equal share; that is always safe,
because a delta message without its reference is classified alone.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, replace

import numpy as np

from sagelink.pipeline.types import Units
from sagelink.transport.codecs import Patches, Tokens
from sagelink.transport.link import node_of

_PER_CAMERA = 4  # newest references: those of messages on their way, and theirs
_UNUSED_S = 120.0  # after this time without use, units are deleted


@dataclass(frozen=True, slots=True)
class StoredUnits:
    """Units of one classified frame."""

    units: Units  # (K,) ascending
    content: Patches | Tokens
    used_s: float  # monotonic clock

    @property
    def size_bytes(self) -> int:
        return int(self.content.nbytes + self.units.nbytes)

    def part(self, units: Units) -> Patches | Tokens | None:
        """The content of these units, ascending; None unless all of them are stored."""
        places = np.searchsorted(self.units, units)
        if not np.isin(units, self.units).all():
            return None
        content: Patches | Tokens = self.content[places]
        return content


class ReferenceStore:
    """References of all cameras. Thread-safe; time is an argument."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: of all stored units; 0 stores nothing."""
        self._max_bytes = max_bytes
        self._stored: OrderedDict[tuple[str, bytes], StoredUnits] = OrderedDict()  # least recently used first
        self._names: dict[str, deque[bytes]] = {}  # by camera, oldest first
        self._node_bytes: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.size_bytes = 0

    def recall(self, camera: str, name: bytes, now_s: float) -> StoredUnits | None:
        """The stored units, or None."""
        with self._lock:
            self._delete_unused_since(now_s - _UNUSED_S)
            stored = self._stored.get((camera, name))
            if stored is not None:
                self._stored[camera, name] = replace(stored, used_s=now_s)
                self._stored.move_to_end((camera, name))
            return stored

    def keep(self, camera: str, name: bytes, units: Units, content: Patches | Tokens, now_s: float) -> None:
        """Stores units (K,) and their content, and deletes old ones beyond the limits."""
        with self._lock:
            self._drop(camera, name)
            # A copy: decoded content may be a view of the message that it came in.
            stored = StoredUnits(units, content.copy(), now_s)
            if stored.size_bytes > self._max_bytes:
                return
            self._stored[camera, name] = stored
            self._count(camera, stored.size_bytes)
            names = self._names.setdefault(camera, deque())
            names.append(name)
            if len(names) > _PER_CAMERA:
                self._drop(camera, names[0])
            self._delete_unused_since(now_s - _UNUSED_S)
            while self.size_bytes > self._max_bytes:
                share_bytes = self._max_bytes / len(self._node_bytes)
                self._drop(*next(key for key in self._stored if self._node_bytes[node_of(key[0])] > share_bytes))

    def _delete_unused_since(self, oldest_s: float) -> None:
        while self._stored and next(iter(self._stored.values())).used_s < oldest_s:
            self._drop(*next(iter(self._stored)))

    def _drop(self, camera: str, name: bytes) -> None:
        stored = self._stored.pop((camera, name), None)
        if stored is None:
            return
        self._count(camera, -stored.size_bytes)
        self._names[camera].remove(name)
        if not self._names[camera]:
            del self._names[camera]

    def _count(self, camera: str, change_bytes: int) -> None:
        node = node_of(camera)
        self.size_bytes += change_bytes
        self._node_bytes[node] += change_bytes
        if not self._node_bytes[node]:
            del self._node_bytes[node]
