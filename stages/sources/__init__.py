"""Where pictures come from. `open_source` picks the source that a user's words mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.config import CaptureConfig
from pipeline.errors import SagelinkError, UsageError
from pipeline.types import Pixels

ACCEPTED = (
    "a video file, a folder of images, a webcam (0, 1 ... or /dev/video0), an rtsp:// or http(s):// URL, or synthetic:N"
)


class SourceError(SagelinkError):
    """A source that could be reached when the run began has failed, or a camera cannot be reached."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture as a source gives it."""

    pixels: Pixels  # (H, W, 3) RGB
    stream_s: float  # the source's own time since its first picture, never decreasing
    name: str | None = None
    truth: int | None = None


class PictureSource(Protocol):
    """Blocking; opened by its constructor, used from one thread."""

    @property
    def name(self) -> str:
        """What it reads, without credentials."""
        ...

    @property
    def live(self) -> bool:
        """Whether pictures come at their own pace, taken or not."""
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
    def labels(self) -> tuple[str, ...] | None:
        """Class names of the truth, where it is known."""
        ...

    def __iter__(self) -> Iterator[Shot]: ...

    def close(self) -> None: ...


def open_source(config: CaptureConfig) -> PictureSource:
    """Opens what `config.source` names. Raises UsageError for what does not exist, SourceError for what is down."""
    text = config.source
    if not text:
        raise UsageError(f"no source given; accepted: {ACCEPTED}")
    if text.startswith("synthetic:"):
        from stages.sources.synthetic import SyntheticSource

        return SyntheticSource.parse(text)
    if "://" in text or text.isdecimal() or text.startswith("/dev/"):
        from stages.sources.live import LiveSource

        return LiveSource(text, config.open_timeout, config.read_timeout)
    path = Path(text)
    if not path.exists():
        raise UsageError(f"source {text!r} does not exist; accepted: {ACCEPTED}")
    if path.is_dir():
        from stages.sources.images import ImageFolder

        return ImageFolder(path, config.image_fps)
    from stages.sources.video import VideoFile

    return VideoFile(path)
