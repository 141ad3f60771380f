"""Checks that FFmpeg can convert the colours that a coded stream states in its header (its parameter sets)."""

from __future__ import annotations

import av

# The start of a key picture. It makes the H.264 decoder read its parameter sets; the rest of the picture is missing.
_KEY_PICTURE = bytes.fromhex("6588840033ffffff")
_START_CODE, _LENGTH = b"\x00\x00\x00\x01", len(_KEY_PICTURE).to_bytes(4, "big")
_CODECS = ("h264", "hevc")


def convertible(codec: str, header: bytes) -> bool:
    """Whether FFmpeg can convert the colour matrix that `header` (the extradata of `codec`) states to RGB.

    True also where the header states none, or cannot be read.
    """
    if codec not in _CODECS or not header:
        return True
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata = header
    decoder.thread_count = 1
    try:
        decoder.open()
        if codec == "h264":
            decoder.decode(av.Packet((_LENGTH if header[0] == 1 else _START_CODE) + _KEY_PICTURE))
            decoder.decode(None)
    except (av.FFmpegError, OSError, ValueError):
        pass  # a damaged header; the matrix counts if it has been read
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.colorspace = decoder.colorspace
    try:
        frame.reformat(format="rgb24")
    except OSError:
        return False
    return True
