"""The contract of a picture source (file, folder, synthetic scenes): it ends, and loses no picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sagelink.pipeline.types import Pixels


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One picture of a source."""

    pixels: Pixels  # (H, W, 3) RGB uint8
    stream_s: float  # time since the first picture in s, never decreasing
    name: str | None = None  # file name, of an image
    truth: int | None = None  # true class id, where known
    pts_s: float | None = None  # its timestamp in the file


class PictureSource(Protocol):
    """Blocking; the constructor opens it; used from one thread."""

    @property
    def name(self) -> str:
        """The name of the source, without credentials."""
        ...

    @property
    def skipped(self) -> int:
        """Number of pictures so far that could not be read."""
        ...

    @property
    def length(self) -> int | None:
        """Number of pictures; None where unknown."""
        ...

    @property
    def video(self) -> bool:
        """Whether successive pictures usually show the same scene."""
        ...

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the true classes by class id; None where no truth is known."""
        ...

    def __iter__(self) -> Iterator[SourceFrame]: ...

    def close(self) -> None: ...
