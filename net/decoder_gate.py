"""What may wait for the decoder of a peer's video: a second or two, and no picture that is larger than agreed.

aiortc puts whatever a peer sends into a queue without an end, and its decoder believes the size that a picture claims.
"""

from __future__ import annotations

import queue
import struct
from collections.abc import Callable
from typing import Any

_MOST_WAITING = 60  # coded pictures
_VP8_START = b"\x9d\x01\x2a"  # of a key frame (RFC 6386, section 9.1), before its width and height


class DecoderGate(queue.Queue[Any]):
    """The queue between a receiver and its decoder. `on_fault` is told once why nothing more passes."""

    def __init__(self, max_pixels: int, on_fault: Callable[[str], None]) -> None:
        super().__init__()
        self._most_pixels = max_pixels
        self._on_fault = on_fault
        self._shut = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """An item is a codec and a coded picture; None ends the decoder, which is waited for: it goes first."""
        if item is None:
            with self.mutex:
                self.queue.clear()
        elif self._shut:
            return
        elif fault := self._fault(item[0].name, item[1].data):
            self._shut = True
            self._on_fault(fault)
            return
        super().put(item)

    def _fault(self, codec: str, data: bytes) -> str | None:
        width, height = vp8_size(data) if codec == "VP8" else (0, 0)
        if width * height > self._most_pixels:
            return f"pictures of {width}x{height}; accepted: up to {self._most_pixels} pixels"
        if self.qsize() >= _MOST_WAITING:
            return "pictures come faster than they can be decoded"
        return None


def vp8_size(data: bytes) -> tuple[int, int]:
    """Width and height that a coded picture sets; (0, 0) for one that keeps those of the one before."""
    if len(data) < 10 or data[0] & 1 or data[3:6] != _VP8_START:
        return 0, 0
    width, height = struct.unpack_from("<HH", data, 6)
    return width & 0x3FFF, height & 0x3FFF
