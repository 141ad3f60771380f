"""A folder of images as a picture source, in the order of their names."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.file_names import shown_name
from sagelink.pipeline.types import Pixels
from sagelink.stages.decoded_picture import MAX_SIDE
from sagelink.stages.sources.contract import SourceFrame

log = logging.getLogger(__name__)

SUFFIXES = (".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class ImageFolder:
    """Images in a folder and its subfolders, `fps` per second. An unreadable image is skipped and counted."""

    labels = None
    video = False

    def __init__(self, folder: Path, fps: float) -> None:
        """Raises UsageError when the folder holds no readable image."""
        self._folder = folder
        self.name = shown_name(folder)
        self._fps = fps
        self.skipped = 0
        self._paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not self._paths:
            raise UsageError(f"folder {str(folder)!r} holds no images; accepted: {', '.join(SUFFIXES)}")
        if not any(_readable(path) for path in self._paths):
            raise UsageError(f"folder {str(folder)!r}: none of its {len(self._paths)} images can be read")
        self.length = len(self._paths)

    def __iter__(self) -> Iterator[SourceFrame]:
        for index, path in enumerate(self._paths):
            try:
                pixels = read_image(path)
            except OSError as error:
                self.skipped += 1
                log.warning("source=%s event=unreadable error=%r", path, str(error))
                continue
            yield SourceFrame(pixels, index / self._fps, name=shown_name(path.relative_to(self._folder)))

    def close(self) -> None:
        pass


def read_image(path: Path) -> Pixels:
    """Reads an image: RGB uint8 (H, W, 3), rotated by its EXIF orientation, without transparency. Raises OSError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decompression-bomb and metadata warnings: sizes are bounded here
            with Image.open(path) as image:
                image.draft("RGB", (MAX_SIDE, MAX_SIDE))
                if max(image.size) > MAX_SIDE:
                    image.thumbnail((MAX_SIDE, MAX_SIDE), reducing_gap=2.0)
                return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:  # errors of Pillow for broken files
        raise OSError(str(error)) from None


def _readable(path: Path) -> bool:
    try:
        read_image(path)
    except OSError:
        return False
    return True
