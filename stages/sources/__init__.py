"""Pictures on disk, or drawn: sources that end, and lose nothing. Live ones are in stages/cameras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sagelink.pipeline.config import ACCEPTED_SOURCES, CameraConfig
from sagelink.pipeline.credentials import redact
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Pixels
from sagelink.stages.cameras.address import is_camera


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One picture as a source gives it."""

    pixels: Pixels  # (H, W, 3) RGB
    stream_s: float  # the source's own time since its first picture, never decreasing
    name: str | None = None
    truth: int | None = None
    pts_s: float | None = None  # its timestamp as it stands in the file


class PictureSource(Protocol):
    """Blocking; opened by its constructor, used from one thread."""

    @property
    def name(self) -> str:
        """What it reads, without credentials."""
        ...

    @property
    def skipped(self) -> int:
        """Pictures that could not be read so far."""
        ...

    @property
    def length(self) -> int | None:
        """How many pictures there are, where that is known."""
        ...

    @property
    def video(self) -> bool:
        """Whether a picture is likely to show what the one before it showed."""
        ...

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names of the truth, where it is known."""
        ...

    def __iter__(self) -> Iterator[SourceFrame]: ...

    def close(self) -> None: ...


def open_source(config: CameraConfig) -> PictureSource:
    """Opens the file, the folder or the drawn world that `config.source` names. Raises UsageError."""
    text = config.source
    if is_camera(text):
        raise UsageError(f"source {redact(text)!r} is a camera; accepted here: a file, a folder or synthetic:N")
    if text.startswith("synthetic:"):
        from sagelink.stages.sources.synthetic import SyntheticSource

        return SyntheticSource.parse(text)
    path = Path(text)
    if not path.exists():
        raise UsageError(f"source {text!r} does not exist; accepted: {ACCEPTED_SOURCES}")
    if path.is_dir():
        from sagelink.stages.sources.images import ImageFolder

        return ImageFolder(path, config.image_fps)
    from sagelink.stages.sources.video import VideoFile

    return VideoFile(path)
