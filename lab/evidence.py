"""What a server that is being adapted gets to see: frames as the planner would send them.

A frame is cropped, turned over and sometimes blended with another, because a teacher can be asked about any picture
and few frames then say as much as many (Beyer et al., "Knowledge distillation: a good teacher is patient and
consistent", 2022). Teacher and student see the same view; only what coding and missing units do to it differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lab.footage import Footage
from pipeline.types import OperatingPoint, Pixels, Units
from stages.frontier import Line
from transport.codecs import Canvas, codec_by_name

_CROPPED = 0.75  # of the views that are no whole frame
_SMALLEST = 0.3  # share of the frame that a crop has at least
_ASPECT = 1.25
_BLENDED = 0.25
_LIKELY = 0.06  # agreement below the best at which a line is chosen 1/e times as often
_RAW = 0.3  # of the steps: chosen units are raw, not coded
_SHUFFLED = 0.3  # of the frames of which units are chosen: by lot, not in order
_FEWEST, MOST = 0.1, 0.85  # share of the units that are chosen


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Pictures as the teacher sees them and as the student does, of those units alone where not all are there."""

    clean: NDArray[np.uint8]  # (B, S, S, 3)
    coded: NDArray[np.uint8]  # (B, S, S, 3)
    units: NDArray[np.int64] | None  # (B, K)


class Views:
    """Draws batches. What step n sees depends on the seed and on n alone, so an interrupted run goes on as it was."""

    def __init__(
        self, footage: Footage, lines: Sequence[Line], canvas: Canvas, sizes: tuple[int, int], seed: int
    ) -> None:
        """`sizes`: fewest and most bytes of a message."""
        self._footage = footage
        self._canvas = canvas
        self._whole = [line for line in lines if line.knob == "quality" and line.base.units == canvas.units]
        self._sizes = np.log(sizes)
        self._seed = seed

    def batch(self, step: int, coded: int, chosen: int, pool: Executor) -> tuple[Lesson, Lesson]:
        """Of a step: so many whole frames, `coded`, and so many with `chosen` units."""
        rng = np.random.default_rng([self._seed, step])
        seeds = rng.spawn(coded + chosen)
        count = round(rng.uniform(_FEWEST, MOST) * self._canvas.units)
        raw = rng.random() < _RAW
        whole = [*pool.map(self._view, seeds[:coded])]
        sent = [*pool.map(self._coded, whole, seeds[:coded])]
        some = [*pool.map(lambda rng: self._chosen(rng, count, raw), seeds[coded:])]
        pictures, pieces, units = zip(*some, strict=True)
        return Lesson(np.stack(whole), np.stack(sent), None), Lesson(
            np.stack(pictures), np.stack(pieces), np.stack(units)
        )

    def _view(self, rng: np.random.Generator) -> Pixels:
        """A crop of a frame, or of two on top of each other."""
        view = self._crop(rng)
        if rng.random() < _BLENDED:
            share = rng.uniform(0.1, 0.5)
            view = np.rint(view * (1 - share) + self._crop(rng) * share).astype(np.uint8)
        return view

    def _crop(self, rng: np.random.Generator) -> Pixels:
        frame = self._footage.frames[rng.integers(len(self._footage))]
        side = frame.shape[0]
        width = height = float(side)
        if rng.random() < _CROPPED:
            area, aspect = rng.uniform(_SMALLEST, 1.0), np.exp(rng.uniform(-1, 1) * np.log(_ASPECT))
            width, height = min(side, side * (area * aspect) ** 0.5), min(side, side * (area / aspect) ** 0.5)
        left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
        size = (self._canvas.pixels, self._canvas.pixels)
        view = Image.fromarray(frame).resize(
            size, Image.Resampling.BICUBIC, (left, top, left + width, top + height), reducing_gap=3.0
        )
        return _turned(np.asarray(view), rng.random() < 0.5)

    def _coded(self, view: Pixels, rng: np.random.Generator) -> Pixels:
        everything = np.arange(self._canvas.units)
        return self._through(view, everything, self._point(rng, 1.0))

    def _chosen(self, rng: np.random.Generator, count: int, raw: bool) -> tuple[Pixels, Pixels, NDArray[np.int64]]:
        """A frame, what is left of it, and the units chosen."""
        row = rng.integers(len(self._footage))
        order, flip = self._footage.orders[row], rng.random() < 0.5
        picture = _turned(self._footage.pictures[row], flip)
        if rng.random() < _SHUFFLED:
            order = rng.permutation(order)
        elif flip:
            y, x = np.divmod(order, self._canvas.side)
            order = y * self._canvas.side + self._canvas.side - 1 - x
        units = np.sort(order[:count]).astype(np.int64)
        left = picture if raw else self._through(picture, units, self._point(rng, count / self._canvas.units))
        return picture, left, units

    def _point(self, rng: np.random.Generator, share: float) -> OperatingPoint:
        """A likely operating point for a message of a random size that has a share of the units."""
        size = np.exp(rng.uniform(*self._sizes)) / share
        lines = [line for line in self._whole if share == 1 or not codec_by_name(line.base.codec).whole]
        within = [(line, setting) for line in lines if (setting := line.affordable(size)) is not None]
        if not within:
            cheapest = min(lines, key=lambda line: line.sizes[0])
            return cheapest.at(int(cheapest.settings[0]))
        worth = np.array([line.agreement(setting) for line, setting in within])
        odds = np.exp((worth - worth.max()) / _LIKELY)
        line, setting = within[rng.choice(len(within), p=odds / odds.sum())]
        return line.at(setting)

    def _through(self, picture: Pixels, units: Units, point: OperatingPoint) -> Pixels:
        """The picture after coding; what is not in `units` is black."""
        canvas, codec = self._canvas, codec_by_name(point.codec)
        patches = codec.decode(codec.encode(picture, units, point, canvas), units, canvas)
        side, patch = canvas.side, canvas.patch_size
        tiles = np.zeros((canvas.units, patch, patch, 3), np.uint8)
        tiles[units] = patches
        return tiles.reshape(side, side, patch, patch, 3).swapaxes(1, 2).reshape(picture.shape)


def _turned(picture: Pixels, flip: bool) -> Pixels:
    return picture[:, ::-1] if flip else picture
