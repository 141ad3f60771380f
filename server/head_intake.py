"""Gets the heads that a server lacks: decides whom to ask, assembles the parts, and tells the edges. Pure: no I/O.

A head is asked for once, whoever announces it: of the edge that asked first, and of another one if that stops sending.
Memory and the number of heads on their way are bounded before anything is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sagelink.pipeline.errors import UsageError
from sagelink.server.head_store import HeadStore
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.head_messages import HeadAssembly, HeadPart, HeadState, HeadStatus

_MAX_COMING = 64  # heads on their way
_MAX_COMING_BYTES = 16_000_000  # of their files
_SILENT_S = 8.0  # without a part: another edge is asked
_GIVEN_UP_S = 120.0
_REFUSED_S = 30.0  # a refused head is not asked for again, and its edges are told again, after this time

Told = tuple[str, HeadStatus]  # a camera and what its edge is told


@dataclass(slots=True)
class _Coming:
    """A head on its way."""

    cameras: dict[str, None] = field(default_factory=dict)  # that wait for it, the one that is asked first
    asked_s: float | None = None
    began_s: float = 0.0
    part_s: float = 0.0
    assembly: HeadAssembly | None = None


class HeadIntake:
    """Time is an argument: the monotonic clock."""

    def __init__(self, store: HeadStore) -> None:
        self._store = store
        self._coming: dict[bytes, _Coming] = {}
        self._refused: dict[bytes, tuple[float, str]] = {}

    def refusal(self, fingerprint: bytes, now_s: float) -> str | None:
        """Why the head was refused a short time ago; None if it was not."""
        at_s, reason = self._refused.get(fingerprint, (0.0, ""))
        return reason if reason and now_s - at_s < _REFUSED_S else None

    def wait_for(self, camera: str, fingerprint: bytes, now_s: float) -> bool:
        """A camera needs a head that the store lacks. True if it is to be looked for at the transport first: the head
        was not on its way before."""
        coming = self._coming.get(fingerprint)
        if coming is not None:
            coming.cameras.setdefault(camera)
            return False
        if len(self._coming) >= _MAX_COMING:
            return False
        self._coming[fingerprint] = _Coming({camera: None}, began_s=now_s, part_s=now_s)
        return True

    def ask(self, fingerprint: bytes, now_s: float) -> list[Told]:
        """To be called when the transport does not have the head: asks an edge for it."""
        coming = self._coming.get(fingerprint)
        if coming is None:
            return []
        coming.asked_s = now_s
        first, *others = coming.cameras
        offset = coming.assembly.prefix_bytes() if coming.assembly else 0
        waiting = [(camera, HeadStatus(fingerprint, HeadState.COMING)) for camera in others]
        return [(first, HeadStatus(fingerprint, HeadState.WANTED, offset)), *waiting]

    def remind(self, now_s: float) -> list[Told]:
        """To be called from time to time: asks again for heads whose parts no longer arrive, and gives some up."""
        told: list[Told] = []
        for fingerprint, coming in [*self._coming.items()]:
            if coming.asked_s is None or now_s - max(coming.asked_s, coming.part_s) < _SILENT_S:
                continue
            if now_s - coming.part_s > _GIVEN_UP_S:
                del self._coming[fingerprint]
                continue
            first = next(iter(coming.cameras))
            coming.cameras[first] = coming.cameras.pop(first)  # the next one is asked
            told += self.ask(fingerprint, now_s)
        return told

    @property
    def coming(self) -> list[bytes]:
        """Fingerprints of the heads on their way."""
        return [*self._coming]

    def take(self, part: HeadPart, now_s: float) -> list[Told]:
        """Takes a part; a part that nobody asked for is ignored. When the file is complete or cannot be used, the edges
        that wait are told. Raises MalformedMessage."""
        coming = self._coming.get(part.fingerprint)
        if coming is None:
            return []
        coming.part_s = now_s
        if coming.assembly is None:
            if (reason := self._no_room(part.total_bytes, now_s)) is not None:
                return self._refuse(part.fingerprint, reason, now_s)
            coming.assembly = HeadAssembly(part.fingerprint, part.total_bytes)
        try:
            content = coming.assembly.add(part)
        except MalformedMessage:
            coming.assembly = None  # begins again with the next part
            raise
        if content is None:
            return []
        try:
            self._store.add(content, now_s, part.fingerprint)
        except UsageError as error:
            return self._refuse(part.fingerprint, str(error), now_s)
        self._refused.pop(part.fingerprint, None)
        return self._end(part.fingerprint, HeadStatus(part.fingerprint, HeadState.HELD))

    def _no_room(self, head_bytes: int, now_s: float) -> str | None:
        coming = [other.assembly.total_bytes for other in self._coming.values() if other.assembly]
        if sum(coming) + head_bytes > _MAX_COMING_BYTES:
            return "too many heads are on their way to this server"
        return self._store.refusal(head_bytes, now_s)

    def _refuse(self, fingerprint: bytes, reason: str, now_s: float) -> list[Told]:
        if len(self._refused) >= 1024:
            self._refused.clear()
        self._refused[fingerprint] = now_s, reason
        return self._end(fingerprint, HeadStatus(fingerprint, HeadState.REFUSED, reason=reason))

    def _end(self, fingerprint: bytes, status: HeadStatus) -> list[Told]:
        return [(camera, status) for camera in self._coming.pop(fingerprint).cameras]
