"""Unlabelled frames for adaptation, from any mix of image folders, videos, synthetic worlds and recorded runs.

In: source names. Out: two sets of frames, one to train on and one held out, with the unit order of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.dataset import pictures_of
from sagelink.lab.harness import Harness
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.files.output_files import is_recording
from sagelink.pipeline.types import Pixels, Units
from sagelink.stages.recording_reader import RecordingReader

# Each source is cut into sections and three of them are held out: neighbouring video frames are nearly the same, so a
# random split would put almost equal frames on both sides.
_SECTIONS, _HELD_OUT = 20, (3, 10, 17)


@dataclass(frozen=True, slots=True, eq=False)
class AdaptationFrames:
    """F frames as input of the server model, with the order in which a run would send their units."""

    padded_views: NDArray[np.uint8]  # (F, V, V, 3), see `sagelink.lab.harness.EdgeFeatures`
    pictures: NDArray[np.uint8]  # (F, S, S, 3)
    orders: NDArray[np.intp]  # (F, N) best unit first
    importance: NDArray[np.float32]  # (F, N)

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self) -> Iterator[tuple[Pixels, Pixels, Units, NDArray[np.float32]]]:
        """Padded view, picture, unit order and importance of each frame."""
        return zip(self.padded_views, self.pictures, self.orders, self.importance, strict=True)

    def subset(self, rows: NDArray[np.bool_] | slice) -> AdaptationFrames:
        return AdaptationFrames(self.padded_views[rows], self.pictures[rows], self.orders[rows], self.importance[rows])


def gather(
    sources: Sequence[CameraConfig], limit: int, harness: Harness, config: Config, progress: Callable[[int], None]
) -> tuple[AdaptationFrames, AdaptationFrames]:
    """Returns frames to train on and held-out frames, together at most `limit`.

    Every source gets an equal share of the limit; a short source leaves more for the later ones. `progress` gets the
    number of frames so far. Raises SagelinkError if a source cannot be read.
    """
    padded_views: list[Pixels] = []
    pictures: list[Pixels] = []
    orders: list[NDArray[np.intp]] = []
    importance: list[NDArray[np.float32]] = []
    held_out: list[bool] = []

    for number, source in enumerate(sources):
        before = len(orders)
        images = ((pixels, None) for pixels in _images(source, (limit - before) // (len(sources) - number)))
        for sample in harness.samples(images, config.select):
            padded_views.append(sample.padded_view)
            pictures.append(sample.picture)
            orders.append(sample.order)
            importance.append(sample.importance)
            progress(len(orders))
        count = len(orders) - before
        held_out += [row * _SECTIONS // count in _HELD_OUT for row in range(count)]
    if not orders:
        raise AssertionError("a source yields a frame or raises")
    frames = AdaptationFrames(np.stack(padded_views), np.stack(pictures), np.stack(orders), np.stack(importance))
    is_held_out = np.array(held_out)
    return frames.subset(~is_held_out), frames.subset(is_held_out)


def _images(source: CameraConfig, limit: int) -> Iterator[Pixels]:
    """At most `limit` frames, spread evenly over a source or a recorded run. Raises SagelinkError."""
    folder = Path(source.source)
    if not is_recording(folder):
        yield from (pixels for pixels, _ in pictures_of(source, None, (), limit))
        return
    recording = RecordingReader(folder)
    stride = max(1, len(recording.rows) // limit)
    frames = (pixels for camera in recording.cameras() for pixels in recording.pictures(camera))
    yield from islice(frames, 0, stride * limit, stride)
