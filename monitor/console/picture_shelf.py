"""Pictures of events that arrive in parts, and the last complete ones. Pure; memory is bounded.

Everybody with the rights of a camera can publish parts, so what is beyond the limit leaves: the oldest picture of the
node that uses most.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from sagelink.transport.link import node_of
from sagelink.transport.picture_parts import PicturePart

_MAX_BYTES = 64_000_000
_HEAD = 12  # bytes of a box of type `ftyp`, with its main brand
_AVIF = b"ftypavif"


@dataclass(frozen=True, slots=True)
class ShelvedPicture:
    """What has arrived of the picture of an event."""

    total_bytes: int
    data: bytes

    @property
    def is_complete(self) -> bool:
        return len(self.data) == self.total_bytes


class PictureShelf:
    """Pictures by camera (`node/camera`) and event."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._nodes: dict[str, OrderedDict[tuple[str, str], ShelvedPicture]] = {}  # of each node, oldest first
        self._node_bytes: Counter[str] = Counter()

    def take(self, camera: str, part: PicturePart) -> ShelvedPicture | None:
        """Adds a part. Returns the picture as it is now; None for a part that came before, that does not continue what
        is here, or of a file that is not AVIF."""
        known = self._find(camera, part.event) or ShelvedPicture(part.total_bytes, b"")
        if part.offset != len(known.data) or part.total_bytes != known.total_bytes:
            return None
        picture = ShelvedPicture(part.total_bytes, known.data + part.data)
        if not _is_avif(picture.data):
            return None
        self.put(camera, part.event, picture)
        return picture

    def put(self, camera: str, event: str, picture: ShelvedPicture) -> None:
        """Replaces a picture."""
        self.drop(camera, event)
        node = node_of(camera)
        self._nodes.setdefault(node, OrderedDict())[camera, event] = picture
        self._node_bytes[node] += len(picture.data)
        while self._node_bytes.total() > self._max_bytes:
            self.drop(*next(iter(self._nodes[max(self._node_bytes, key=lambda name: self._node_bytes[name])])))

    def get(self, camera: str, event: str) -> bytes | None:
        """The AVIF file of an event; None unless it is complete and here."""
        found = self._find(camera, event)
        return found.data if found is not None and found.is_complete else None

    def drop(self, camera: str, event: str) -> None:
        node = node_of(camera)
        if (pictures := self._nodes.get(node)) is None or (picture := pictures.pop((camera, event), None)) is None:
            return
        self._node_bytes[node] -= len(picture.data)
        if not pictures:
            del self._nodes[node], self._node_bytes[node]

    def _find(self, camera: str, event: str) -> ShelvedPicture | None:
        pictures = self._nodes.get(node_of(camera))
        return None if pictures is None else pictures.get((camera, event))


def _is_avif(data: bytes) -> bool:
    """Whether a file that begins so may be AVIF."""
    return data[:_HEAD][4:] == _AVIF[: max(0, len(data) - 4)]
