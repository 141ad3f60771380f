"""Frames without labels for adaptation: any mix of image folders, videos, drawn worlds and recorded runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.dataset import pictures_of
from sagelink.lab.harness import Harness
from sagelink.pipeline.config import CameraConfig, Config
from sagelink.pipeline.outputs import FRAMES
from sagelink.pipeline.types import Pixels, Units
from sagelink.stages.recording_reader import RecordingReader

# A source is cut into stretches, and some are held out: frames that follow each other in a video are nearly the same.
_STRETCHES, _HELD_OUT = 20, (3, 10, 17)


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """Frames as the server's model sees them, and the order in which a run would send their units."""

    frames: NDArray[np.uint8]  # (F, V, V, 3): `padded_view` of lab.rig.Features
    pictures: NDArray[np.uint8]  # (F, S, S, 3)
    orders: NDArray[np.intp]  # (F, N) best first
    importance: NDArray[np.float32]  # (F, N)

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self) -> Iterator[tuple[Pixels, Pixels, Units, NDArray[np.float32]]]:
        """Of each frame: as it was kept, as a picture, the order of its units and their importance."""
        return zip(self.frames, self.pictures, self.orders, self.importance, strict=True)

    def part(self, rows: NDArray[np.bool_] | slice) -> Footage:
        return Footage(self.frames[rows], self.pictures[rows], self.orders[rows], self.importance[rows])


def gather(
    sources: Sequence[CameraConfig], most: int, harness: Harness, config: Config, progress: Callable[[int], None]
) -> tuple[Footage, Footage]:
    """At most `most` frames of all sources, an equal part of each that has so many: to learn from, and held out.

    `progress` is told how many are there. Raises SagelinkError for a source that cannot be read.
    """
    frames: list[Pixels] = []
    pictures: list[Pixels] = []
    orders: list[NDArray[np.intp]] = []
    importance: list[NDArray[np.float32]] = []
    held_out: list[bool] = []

    for at, source in enumerate(sources):
        before = len(orders)
        stills = ((pixels, None) for pixels in _stills(source, (most - before) // (len(sources) - at)))
        for sample in harness.samples(stills, config.select):
            frames.append(sample.padded_view)
            pictures.append(sample.picture)
            orders.append(sample.order)
            importance.append(sample.importance)
            progress(len(orders))
        count = len(orders) - before
        held_out += [row * _STRETCHES // count in _HELD_OUT for row in range(count)]
    if not orders:
        raise AssertionError("a source gives a frame or raises")
    everything = Footage(np.stack(frames), np.stack(pictures), np.stack(orders), np.stack(importance))
    chosen = np.array(held_out)
    return everything.part(~chosen), everything.part(chosen)


def _stills(source: CameraConfig, most: int) -> Iterator[Pixels]:
    """At most so many frames of a source or of a recorded run, spread over it. Raises SagelinkError."""
    folder = Path(source.source)
    if not (folder / FRAMES).is_file():
        yield from (pixels for pixels, _ in pictures_of(source, None, (), most))
        return
    recording = RecordingReader(folder)
    stride = max(1, len(recording.rows) // most)
    everything = (pixels for camera in recording.cameras() for pixels in recording.pictures(camera))
    yield from islice(everything, 0, stride * most, stride)
