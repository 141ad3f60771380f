"""The contract of a picture source: files, folders and drawn worlds, which end and lose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sagelink.pipeline.types import Pixels


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
