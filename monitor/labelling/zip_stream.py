"""A zip file that is sent while it is written."""

from __future__ import annotations

import io
from typing import Any


class ZipChunks(io.RawIOBase):
    """Collects what a zip file writes, until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
