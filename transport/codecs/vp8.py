"""Lossy WebP: one VP8 key frame (RFC 6386); the RIFF container around it is not sent but rebuilt."""

from __future__ import annotations

import io
import struct

from PIL import Image

from sagelink.transport.envelope import MalformedMessage

_CONTAINER = struct.Struct("<4sI4s4sI")  # RIFF, size, WEBP, VP8, size of the chunk
_TAG_BYTES = 3
_START = struct.Struct("<3sHH")  # start code, width, height; after the frame tag
_START_CODE = b"\x9d\x01\x2a"
_METHOD = 4


def encode(image: Image.Image, quality: int) -> bytes:
    """A WebP file; `quality` 0 to 100."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=_METHOD)
    return file.getvalue()


def strip(file: bytes) -> tuple[int, int, bytes]:
    """Width and height of the picture, and the key frame without its start code and size. Raises MalformedMessage."""
    if len(file) < _CONTAINER.size + _TAG_BYTES + _START.size:
        raise MalformedMessage(f"{len(file)} bytes are no WebP file")
    riff, _, webp, chunk, size = _CONTAINER.unpack_from(file)
    frame = file[_CONTAINER.size : _CONTAINER.size + size]
    start_code, width, height = _START.unpack_from(frame.ljust(_TAG_BYTES + _START.size, b"\0"), _TAG_BYTES)
    if (riff, webp, chunk, start_code) != (b"RIFF", b"WEBP", b"VP8 ", _START_CODE) or len(
        file
    ) - _CONTAINER.size != size + size % 2:
        raise MalformedMessage("not a plain lossy WebP file")
    return width, height, frame[:_TAG_BYTES] + frame[_TAG_BYTES + _START.size :]


def rebuild(width: int, height: int, core: bytes) -> bytes:
    """The WebP file from the results of `strip`."""
    frame = core[:_TAG_BYTES] + _START.pack(_START_CODE, width, height) + core[_TAG_BYTES:]
    chunk = frame + b"\0" * (len(frame) % 2)
    return _CONTAINER.pack(b"RIFF", len(chunk) + 12, b"WEBP", b"VP8 ", len(frame)) + chunk
