"""A folder of images as a picture source, in the order of their names; or one image file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.file_names import shown_name
from sagelink.stages.sources.contract import SourceFrame
from sagelink.stages.sources.image_file import SUFFIXES, find_images, read_image

log = logging.getLogger(__name__)


class Images:
    """Images in a folder and its subfolders, `fps` per second. An unreadable image is skipped and counted."""

    labels = None
    video = False

    def __init__(self, path: Path, fps: float) -> None:
        """`path`: a folder, or one image. Raises UsageError when no image there can be read."""
        self._folder = path if path.is_dir() else path.parent
        self.name = shown_name(path)
        self._fps = fps
        self.skipped = 0
        self._paths = find_images(path) if path.is_dir() else [path]
        if not self._paths:
            raise UsageError(f"folder {str(path)!r} holds no images; accepted: {', '.join(SUFFIXES)}")
        if not any(_readable(path) for path in self._paths):
            if path.is_dir():
                raise UsageError(f"folder {str(path)!r}: none of its {len(self._paths)} images can be read")
            raise UsageError(f"image {str(path)!r} cannot be read; accepted: {', '.join(SUFFIXES)}")
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


def _readable(path: Path) -> bool:
    try:
        read_image(path)
    except OSError:
        return False
    return True
