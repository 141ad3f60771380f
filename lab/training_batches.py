"""What a server that is being adapted gets to see: frames as the planner would send them.

A frame is cropped, turned over and sometimes blended with another, because a teacher can be asked about any picture
and few frames then say as much as many (Beyer et al., "Knowledge distillation: a good teacher is patient and
consistent", 2022). Teacher and student see the same view; only what coding and missing units do to it differs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sagelink.lab.unlabelled_frames import Footage
from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.unit_rectangle import best_rectangle_of
from sagelink.transport.codecs import Canvas, codec_by_name

_CROPPED = 0.85  # of the views that are no whole frame
_SMALLEST = 0.15  # share of the frame that a crop has at least
_ASPECT = 1.25
_BLENDED = 0.5
_LIKELY = 0.06  # agreement below the best at which a line is chosen 1/e times as often
_RAW = 0.3  # of the steps: chosen units are raw, not coded
_SHUFFLED = 0.3  # of the frames of which units are chosen: by lot, not in order
_FEWEST, MOST = 0.1, 0.85  # share of the units that are chosen
_STEPS = 10**9  # more than anyone waits for
_OBLONG = 1.6  # a rectangle is at most about so many times as long as wide


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pictures as the teacher sees them and as the student does, of those units alone where not all are there."""

    clean: NDArray[np.uint8]  # (B, S, S, 3)
    coded: NDArray[np.uint8]  # (B, S, S, 3)
    units: NDArray[np.int64] | None  # (B, K)


class BatchDataset(Dataset[tuple[Batch, Batch]]):
    """What each step sees: whole frames, and frames of which units are chosen.

    That depends on the seed and on the step alone, so an interrupted run goes on as it was.
    """

    def __init__(
        self,
        footage: Footage,
        lines: Sequence[RateQualityCurve],
        canvas: Canvas,
        sizes: tuple[int, int],
        mix: tuple[int, int],
        seed: int,
    ) -> None:
        """`sizes`: fewest and most bytes of a message; `mix`: whole frames of a step, and those with chosen units."""
        self._footage = footage
        self._canvas = canvas
        # Those of closer looks too: what is shown is a crop already.
        self._whole = [line for line in lines if line.knob == "quality" and line.point.units == canvas.units]
        self._sizes = np.log(sizes)
        self._mix = mix
        self._seed = seed

    def __getitem__(self, step: int) -> tuple[Batch, Batch]:
        coded, chosen = self._mix
        rng = np.random.default_rng([self._seed, step])
        seeds = rng.spawn(coded + chosen)
        whole = [self._view(seed) for seed in seeds[:coded]]
        sent = [self._coded(view, seed) for view, seed in zip(whole, seeds[:coded], strict=True)]
        count = round(rng.uniform(_FEWEST, MOST) * self._canvas.units)
        shape = None if rng.random() < _RAW else self._shape(count, rng)
        pictures, pieces, units = zip(*(self._chosen(count, shape, seed) for seed in seeds[coded:]), strict=True)
        # Arrays, not tensors: those would go through shared memory, of which a container has little.
        return Batch(np.stack(whole), np.stack(sent), None), Batch(
            np.stack(pictures), np.stack(pieces), np.stack(units)
        )

    def from_step(self, step: int) -> Iterator[tuple[Batch, Batch]]:
        """All steps from one on, made ahead by a process for each core."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ahead = DataLoader(
            self, batch_size=None, sampler=range(step, _STEPS), num_workers=cores, worker_init_fn=_prepare_worker
        )
        return iter(ahead)

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

    def _shape(self, count: int, rng: np.random.Generator) -> tuple[int, int]:
        """Rows and columns of a rectangle of about so many units."""
        side = self._canvas.side
        rows = (count * np.exp(rng.uniform(-1, 1) * np.log(_OBLONG))) ** 0.5
        rows = int(np.clip(round(rows), -(-count // side), side))
        return rows, max(1, count // rows)

    def _chosen(
        self, count: int, shape: tuple[int, int] | None, rng: np.random.Generator
    ) -> tuple[Pixels, Pixels, Units]:
        """A frame, what is left of it, and the units chosen: so many raw ones, or a rectangle, coded."""
        row, side = rng.integers(len(self._footage)), self._canvas.side
        order, flip = self._footage.orders[row], rng.random() < 0.5
        picture = _turned(self._footage.pictures[row], flip)
        if rng.random() < _SHUFFLED:
            order = rng.permutation(order)
        elif flip:
            y, x = np.divmod(order, side)
            order = y * side + side - 1 - x
        if shape is None:
            return picture, picture, np.sort(order[:count])
        units = best_rectangle_of(order, *shape, side)
        return picture, self._through(picture, units, self._point(rng, len(units) / self._canvas.units)), units

    def _point(self, rng: np.random.Generator, share: float) -> OperatingPoint:
        """A likely operating point for a message of a random size that has a share of the units."""
        size = np.exp(rng.uniform(*self._sizes)) / share
        lines = [line for line in self._whole if share == 1 or codec_by_name(line.point.codec).sends != "whole"]
        within = [(line, setting) for line in lines if (setting := line.max_setting_for(size)) is not None]
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


def _prepare_worker(_number: int) -> None:
    """Whoever asks all processes to stop asks the one that learns; it ends this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _turned(picture: Pixels, flip: bool) -> Pixels:
    return picture[:, ::-1] if flip else picture
