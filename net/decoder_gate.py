"""Bounds what a peer's video may cost: a queue of coded pictures in front of the decoder, with a limit on the length of
the queue and on the size of a picture.

Without it, aiortc queues everything that a peer sends, and its decoder allocates whatever size a picture claims.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from sagelink.net.picture_size import h264_size, vp8_size

_MAX_WAITING = 60  # coded pictures: one or two seconds
_SIZE_READERS = {"VP8": vp8_size, "H264": h264_size}


class DecoderGate(queue.Queue[Any]):
    """The queue between a receiver of aiortc and its decoder thread. After a fault no more pictures pass."""

    def __init__(self, max_pixels: int, on_fault: Callable[[str], None]) -> None:
        """`max_pixels`: width x height of a picture. `on_fault` is called once, with the reason."""
        super().__init__()
        self._max_pixels = max_pixels
        self._on_fault = on_fault
        self._shut = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Adds a pair of codec and coded picture, or None, which ends the decoder.

        aiortc waits for the decoder to end, so None discards the pictures before it.
        """
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
        read_size = _SIZE_READERS.get(codec)
        if read_size is None:
            return f"pictures of codec {codec!r}; accepted: {', '.join(_SIZE_READERS)}"
        width, height = read_size(data)
        if width * height > self._max_pixels:
            return f"pictures of {width}x{height}; accepted: up to {self._max_pixels} pixels"
        if self.qsize() >= _MAX_WAITING:
            return "pictures come faster than they can be decoded"
        return None
