"""Reads an image file: RGB uint8, upright, opaque. Says which files are images."""

from __future__ import annotations

import logging
import os
import warnings
from collections import deque
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sagelink.pipeline.types import Pixels
from sagelink.stages.decoded_picture import BACKGROUND, MAX_SIDE, opaque
from sagelink.stages.orientation import EXIF_TAG, UPRIGHT, displayed

log = logging.getLogger(__name__)

SUFFIXES = (".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_ANIMATED = ("AVIF", "PNG", "WEBP")  # formats whose files may be videos; FFmpeg plays them
_WIDE = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow modes of grey pixels with more than 8 bits
_LEVELS = np.rint(np.arange(65536) / 257).astype(np.uint8)  # of 16 bits
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # TIFF tag
_SAMPLE_FORMAT, _UNSIGNED = 339, (1,)  # TIFF tag
_BROKEN = (ValueError, SyntaxError, Image.DecompressionBombError)  # of Pillow, for broken files


def find_images(folder: Path) -> list[Path]:
    """Paths of all images in a folder and its subfolders, sorted; links to folders are followed.

    Each folder is read once, so links may form circles. A link to a folder that is read already adds nothing.
    """
    waiting, paths = deque([folder]), list[Path]()
    read: dict[tuple[int, int], str] = {}  # path of each folder, by device and inode
    while waiting:
        for where, subfolders, names in os.walk(waiting.popleft(), onerror=_log_unreadable):
            status = os.stat(where)
            known = read.setdefault((status.st_dev, status.st_ino), where)
            if known is not where:
                log.info("source=%s event=folder_already_read as=%s", where, known)
                subfolders.clear()
                continue
            links = [Path(where, name) for name in sorted(subfolders) if os.path.islink(os.path.join(where, name))]
            waiting.extend(links)  # after all real folders, so that these keep their own paths
            paths += [path for name in names if (path := Path(where, name)).suffix.lower() in SUFFIXES]
    return sorted(path for path in paths if path.is_file())


def _log_unreadable(error: OSError) -> None:
    log.warning("source=%s event=unreadable error=%r", error.filename, error.strerror)


def is_still_image(path: Path) -> bool:
    """Whether the file holds one picture that `read_image` can read; False for videos and animations."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    try:
        with _quiet(), Image.open(path) as image:
            return image.format not in _ANIMATED or not getattr(image, "is_animated", False)
    except Image.DecompressionBombError:
        return True  # and `read_image` refuses it
    except (OSError, *_BROKEN):
        return False


def read_image(path: Path | BinaryIO, max_side: int = MAX_SIDE) -> Pixels:
    """Reads an image from a path or an open file.

    Returns RGB uint8 (H, W, 3), turned and mirrored by its EXIF orientation, transparent parts over white. An image
    with a side above `max_side` pixels is scaled down; a JPEG file then takes less time to decode.

    Grey pixels of 16 bits map 0..65535 to 0..255. Grey pixels of 32 bits, integers or floats, map 0..top to 0..255; top
    is the first of 1 (floats only), 255, 65535 that is not below the largest pixel, else the largest pixel. Raises
    OSError.
    """
    try:
        with _quiet(), Image.open(path) as image:
            image.draft("RGB", (max_side, max_side))
            image.load()
            orientation = image.getexif().get(EXIF_TAG, UPRIGHT)  # after loading: Pillow itself turns TIFF files
            picture = _eight_bits(image)
            if max(picture.size) > max_side:
                picture.thumbnail((max_side, max_side), reducing_gap=2.0)
            pixels = np.array(picture)
            return displayed(opaque(pixels) if picture.mode == "RGBA" else pixels, orientation)
    except _BROKEN as error:
        raise OSError(str(error)) from None


def _quiet() -> warnings.catch_warnings[None]:
    """Without decompression-bomb and metadata warnings: sizes are bounded here."""
    return warnings.catch_warnings(action="ignore")


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in mode RGB, or in mode RGBA where it may be transparent."""
    if image.mode in _WIDE:
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.mode == "LAB":  # Pillow converts it only by colour profiles
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB") or image
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Grey levels (H, W) of an image in one of the modes of _WIDE; `read_image` says how they are scaled."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "I" and tags.get(_SAMPLE_FORMAT) == _UNSIGNED:
        values = values.view(np.uint32)
    if image.mode.startswith("I;16"):
        grey = _LEVELS[values]
    else:
        top = _top(values)
        scaled = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=top, neginf=0.0) * np.float32(255 / top)
        grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    hidden = image.info.get("transparency")  # the one level that is transparent, in a PNG
    return np.where(values == hidden, np.uint8(BACKGROUND), grey) if isinstance(hidden, int) else grey


def _top(values: NDArray[np.generic]) -> float:
    """The value that becomes white in a grey image of 32 bits."""
    finite = values[np.isfinite(values)]
    largest = max(float(finite.max()), 0.0) if finite.size else 0.0
    tops = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    return next((top for top in tops if largest <= top), largest)
