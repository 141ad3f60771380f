"""Frames without labels for adaptation: any mix of image folders, videos, drawn worlds and recorded runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lab.pictures import pictures_of
from lab.rig import Rig
from models.picture import make_picture
from pipeline.config import CameraConfig, Config
from pipeline.types import Pixels
from stages.recorded import Recording
from stages.sinks.recording import FRAMES

_ROOM = 10 / 7  # pixels of a kept frame for each of the model's picture: how far a crop may go in without blur
# A source is cut into stretches, and some are held out: frames that follow each other in a video are nearly the same.
_STRETCHES, _HELD_OUT = 20, (3, 10, 17)


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """Frames as the server's model sees them, and the order in which a run would send their units."""

    frames: NDArray[np.uint8]  # (F, V, V, 3), V = _ROOM x S
    pictures: NDArray[np.uint8]  # (F, S, S, 3)
    orders: NDArray[np.intp]  # (F, N) best first

    def __len__(self) -> int:
        return len(self.frames)

    def part(self, rows: NDArray[np.bool_] | slice) -> Footage:
        return Footage(self.frames[rows], self.pictures[rows], self.orders[rows])


def gather(
    sources: Sequence[CameraConfig], most: int, rig: Rig, config: Config, progress: Callable[[int], None]
) -> tuple[Footage, Footage]:
    """At most `most` frames of all sources, an equal part of each that has so many: to learn from, and held out.

    `progress` is told how many are there. Raises SagelinkError for a source that cannot be read.
    """
    grid = rig.pair.server.grid
    side = round(_ROOM * grid.image_size)
    frames: list[Pixels] = []
    pictures: list[Pixels] = []
    orders: list[NDArray[np.intp]] = []
    held_out: list[bool] = []

    def seen(stills: Iterator[Pixels]) -> Iterator[tuple[Pixels, None]]:
        for pixels in stills:
            frames.append(make_picture(pixels, side, config.capture.resize, grid.interpolation, grid.crop_pct))
            yield pixels, None

    for at, source in enumerate(sources):
        before = len(orders)
        for sample in rig.samples(seen(_stills(source, (most - before) // (len(sources) - at))), config.select):
            pictures.append(sample.picture)
            orders.append(sample.order)
            progress(len(orders))
        count = len(orders) - before
        held_out += [row * _STRETCHES // count in _HELD_OUT for row in range(count)]
    if not orders:
        raise AssertionError("a source gives a frame or raises")
    everything = Footage(np.stack(frames), np.stack(pictures), np.stack(orders))
    chosen = np.array(held_out)
    return everything.part(~chosen), everything.part(chosen)


def _stills(source: CameraConfig, most: int) -> Iterator[Pixels]:
    """At most so many frames of a source or of a recorded run, spread over it. Raises SagelinkError."""
    folder = Path(source.source)
    if not (folder / FRAMES).is_file():
        yield from (pixels for pixels, _ in pictures_of(source, None, (), most))
        return
    recording = Recording(folder)
    stride = max(1, len(recording.rows) // most)
    everything = (pixels for camera in recording.cameras() for pixels in recording.pictures(camera))
    yield from islice(everything, 0, stride * most, stride)
