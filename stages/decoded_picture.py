"""Converts decoded frames to pictures: RGB, upright, opaque, with square pixels, at most MAX_SIDE pixels per side."""

from __future__ import annotations

import functools
import logging
from fractions import Fraction

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from sagelink.pipeline.types import Pixels
from sagelink.stages.orientation import UPRIGHT, displayed, orientation_of

log = logging.getLogger(__name__)

MAX_SIDE = 4096  # pixels; larger pictures are scaled down, during decoding where the format allows it
BACKGROUND = 255  # transparent pictures are composited over white, as browsers and printers do
_WIDEST_PIXEL = 4  # width / height; or its inverse. Real formats have 0.5 to 3; others are mistakes of a header
_TURNED = (UPRIGHT, 8, 3, 6)  # EXIF orientations, by quarter turns counter-clockwise
FALLBACK_MATRIX = "ITU709"  # for colour matrices that FFmpeg cannot convert


def within_max(width: float, height: float) -> tuple[int, int]:
    """Width and height, scaled down so that neither exceeds MAX_SIDE."""
    scale = min(1.0, MAX_SIDE / max(width, height, 1))
    return max(1, round(width * scale)), max(1, round(height * scale))


def plausible_aspect(aspect: Fraction | None) -> bool:
    """Whether a pixel aspect (width / height) can be true; None: unknown."""
    return aspect is not None and Fraction(1, _WIDEST_PIXEL) <= aspect <= _WIDEST_PIXEL


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Size with square pixels and the same height, within MAX_SIDE. An implausible pixel aspect counts as 1."""
    return within_max(width * float(aspect) if aspect is not None and plausible_aspect(aspect) else width, height)


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The picture (H, W, 3), scaled to `size` (width, height)."""
    height, width = pixels.shape[:2]
    if size == (width, height):
        return pixels
    smaller = size[0] <= width and size[1] <= height
    scaled: Pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return scaled


def opaque(rgba: NDArray[np.uint8]) -> Pixels:
    """RGBA (H, W, 4), not premultiplied, over BACKGROUND: RGB (H, W, 3). Colours under alpha 0 have no effect."""
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = rgba[..., :3] * alpha + BACKGROUND * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


class FrameConverter:
    """Converts the frames of one stream to pictures. Warns once about each oddity of a source."""

    def __init__(self, name: str, stream: av.VideoStream | None = None) -> None:
        """`name`: of the source, in warnings. `stream`: tells the pixel aspect; without it, pixels are square."""
        self._name = name
        self._codec = stream.codec_context if stream else None
        self._aspect = stream.sample_aspect_ratio if stream else None
        # A container that contradicts its stream is right, as for players; else the stream may change the aspect.
        self._fixed_aspect = bool(self._aspect) and self._codec is not None and self._aspect != self._codec_aspect()
        self._unknown_matrices: set[int] = set()
        self._reformatter = VideoReformatter()  # that of a frame begins anew with each frame

    def __call__(self, frame: av.VideoFrame) -> Pixels:
        """RGB (H, W, 3). Raises OSError or ValueError for a frame that FFmpeg cannot convert."""
        size = square_size(frame.width, frame.height, self._pixel_aspect())
        if _has_alpha(frame.format.name):  # scaled afterwards: hidden colours must not mix with visible ones
            pixels = resized(opaque(self._reformat(frame, (frame.width, frame.height), "rgba")), size)
        else:
            pixels = self._reformat(frame, size, "rgb24")
        orientation = _orientation(frame)
        return pixels if orientation == UPRIGHT else displayed(pixels, orientation)

    def _codec_aspect(self) -> Fraction | None:
        return self._codec.sample_aspect_ratio if self._codec else None

    def _pixel_aspect(self) -> Fraction | None:
        aspect = self._aspect if self._fixed_aspect else self._codec_aspect() or self._aspect
        if aspect and not plausible_aspect(aspect):
            _warn_once(self._name, "pixel_aspect_ignored", str(aspect))
        return aspect

    def _reformat(self, frame: av.VideoFrame, size: tuple[int, int], layout: str) -> NDArray[np.uint8]:
        reformat = functools.partial(self._reformatter.reformat, frame, *size, format=layout)
        if frame.colorspace not in self._unknown_matrices:
            try:
                return reformat().to_ndarray()  # type: ignore[return-value]  # uint8
            except OSError:  # FFmpeg does not know the colour matrix, or cannot convert the frame at all
                pixels = reformat(src_colorspace=Colorspace[FALLBACK_MATRIX]).to_ndarray()
                self._unknown_matrices.add(frame.colorspace)
                _warn_once(self._name, "colour_matrix_unknown", f"{frame.colorspace}, converted as {FALLBACK_MATRIX}")
                return pixels  # type: ignore[return-value]
        return reformat(src_colorspace=Colorspace[FALLBACK_MATRIX]).to_ndarray()  # type: ignore[return-value]


@functools.lru_cache(maxsize=1024)  # a camera that reconnects says it once
def _warn_once(source: str, event: str, value: str) -> None:
    log.warning("source=%s event=%s value=%r", source, event, value)


def _orientation(frame: av.VideoFrame) -> int:
    """EXIF orientation of a frame: of its display matrix (phones write one), else upright."""
    try:
        # `frame.side_data` would refer to the frame, and the frame to it: 1.4 MB each until Python finds the circle.
        side_data = SideDataContainer(frame)  # type: ignore[call-arg]  # the stub has no constructor
        matrix = bytes(side_data["DISPLAYMATRIX"])
    except KeyError:
        return UPRIGHT
    except ValueError:  # PyAV does not know a kind of side data of this frame, such as the EXIF block of a JPEG
        return _TURNED[round(frame.rotation / 90) % 4]
    return orientation_of(np.frombuffer(matrix, np.int32).tolist())


@functools.cache
def _has_alpha(pixel_format: str) -> bool:
    """Whether pixels of this format may be transparent; a palette may hold transparent colours."""
    return pixel_format == "pal8" or any(part.is_alpha for part in av.VideoFormat(pixel_format).components)
