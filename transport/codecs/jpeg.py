"""JPEG: a complete baseline file, for comparison with the other formats."""

from __future__ import annotations

import io
import struct

from PIL import Image

from sagelink.transport.envelope import MalformedMessage

_SOI, _SOF0, _SOS = 0xD8, 0xC0, 0xDA
_SOFS = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}


def encode(image: Image.Image, quality: int) -> bytes:
    """A JPEG file with optimized Huffman tables; `quality` 0 to 95."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def strip(file: bytes) -> tuple[int, int, bytes]:
    """Width and height of the picture, and the file. Raises MalformedMessage unless it is a baseline file of one scan.

    Progressive files are refused: a few bytes in them can cause a pass over the whole picture.
    """
    if file[:2] != bytes([0xFF, _SOI]):
        raise MalformedMessage("not a JPEG file")
    at, width, height = 2, 0, 0
    while at + 4 <= len(file) and file[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", file, at)
        if marker == _SOS and width:
            return width, height, file
        if marker in _SOFS:
            if marker != _SOF0 or width or at + 10 > len(file):
                break
            height, width = struct.unpack_from(">HH", file, at + 5)
        at += 2 + length
    raise MalformedMessage("not a baseline JPEG file")


def rebuild(width: int, height: int, core: bytes) -> bytes:
    """The file itself."""
    return core
