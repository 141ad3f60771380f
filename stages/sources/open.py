"""Opens a picture source by its name: a file, a folder, or `synthetic:N`."""

from __future__ import annotations

from pathlib import Path

from sagelink.pipeline.config.camera import ACCEPTED_SOURCES, CameraConfig
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.errors import UsageError
from sagelink.stages.cameras.address import is_camera
from sagelink.stages.sources.contract import PictureSource
from sagelink.stages.sources.image_file import is_still_image


def check_source(text: str) -> None:
    """Raises UsageError if `text` names a camera, or a file or folder that cannot be found. Opens nothing."""
    if is_camera(text):
        raise UsageError(f"source {redact(text)!r} is a camera; accepted here: a file, a folder or synthetic:N")
    if text.startswith("synthetic:"):
        return
    try:
        Path(text).stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, FileNotFoundError):
            reason = "does not exist"
        raise UsageError(f"source {redact(text)!r} {reason}; accepted: {ACCEPTED_SOURCES}") from None


def open_source(config: CameraConfig) -> PictureSource:
    """Opens the file, folder or synthetic source that `config.source` names. Raises UsageError."""
    text = config.source
    check_source(text)
    if text.startswith("synthetic:"):
        from sagelink.stages.sources.synthetic import SyntheticSource

        return SyntheticSource.parse(text)
    path = Path(text)
    if path.is_dir() or is_still_image(path):
        from sagelink.stages.sources.images import Images

        return Images(path, config.image_fps)
    from sagelink.stages.sources.video import VideoFile

    return VideoFile(path)
