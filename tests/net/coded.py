"""Pictures coded by real encoders."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray


def encode_vp8(width: int, height: int, frames: int = 1) -> list[bytes]:
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    return _encode(encoder, np.zeros((height, width, 3), np.uint8), frames)


def encode_h264(
    width: int, height: int, frames: int = 1, options: str = "", pixels: NDArray[np.uint8] | None = None
) -> list[bytes]:
    """`options`: of x264, or `444` for 4:4:4 chroma; `profile=baseline` selects the profile."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = width, height
    encoder.pix_fmt = "yuv444p" if options == "444" else "yuv420p"
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    if options.startswith("profile="):
        encoder.options |= {"profile": options.removeprefix("profile=")}
    elif "=" in options:
        encoder.options |= {"x264-params": options}
    return _encode(encoder, np.zeros((height, width, 3), np.uint8) if pixels is None else pixels, frames)


def _encode(encoder: av.VideoCodecContext, pixels: NDArray[np.uint8], frames: int) -> list[bytes]:
    picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    packets = [packet for _ in range(frames) for packet in encoder.encode(picture)] + encoder.encode(None)
    return [bytes(packet) for packet in packets]
