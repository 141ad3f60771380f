"""Videos of four coloured quarters, coded in rare ways; and what a reader sees of them."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sagelink.pipeline.types import Pixels

SIZE = (96, 64)
QUARTERS = "RGBW"  # top left, top right, bottom left, bottom right
_COLOURS = {"R": (220, 0, 0), "G": (0, 200, 0), "B": (0, 0, 220), "W": (235, 235, 235), "K": (0, 0, 0)}


def quarters(size: tuple[int, int] = SIZE) -> Pixels:
    """The picture (H, W, 3)."""
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    for index, name in enumerate(QUARTERS):
        top, left = divmod(index, 2)
        picture[top * height // 2 :, left * width // 2 :] = _COLOURS[name]
    picture[height // 2 :, : width // 2] = _COLOURS["B"]
    picture[: height // 2, width // 2 :] = _COLOURS["G"]
    return picture


def seen(pixels: Pixels) -> str:
    """The colours of the four quarters, in the order of QUARTERS."""
    height, width = pixels.shape[:2]
    centres = [pixels[y * height // 8, x * width // 8].astype(int) for y in (2, 6) for x in (2, 6)]
    return "".join(min(_COLOURS, key=lambda name: np.abs(np.subtract(_COLOURS[name], at)).sum()) for at in centres)


def write_quarters(
    path: Path,
    frames: int = 5,
    fps: int = 10,
    codec: str = "libx264",
    aspect: Fraction | None = None,
    pixel_format: str = "yuv420p",
    **options: str,
) -> Path:
    """A video of `frames` equal pictures; `options` are those of the codec."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = SIZE
        stream.pix_fmt = pixel_format
        if aspect is not None:
            stream.sample_aspect_ratio = stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def with_display_matrix(path: Path, linear: tuple[int, int, int, int]) -> Path:
    """Overwrites the matrix of an MP4 file of one track (`tkhd`), in place. `linear`: a, b, c, d."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8  # after version, times, ids, reserved, layer and volume
    values = [linear[0] << 16, linear[1] << 16, 0, linear[2] << 16, linear[3] << 16, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = np.array(values, ">i4").tobytes()
    path.write_bytes(data)
    return path


def with_colour_matrix(path: Path, number: int, target: Path) -> Path:
    """A copy of an H.264 file whose header states another colour matrix; its pixels stay as they are."""
    tagged = f"h264_metadata=matrix_coefficients={number}"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-c", "copy", "-bsf:v", tagged, str(target)],
        check=True,
    )
    return target
