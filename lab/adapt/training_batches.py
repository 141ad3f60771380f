"""Training batches of server adaptation: clean frames for the teacher, the same frames after coding for the student.

In: unlabelled frames and the frontier's curves. Out: two `Batch` per step, whole coded frames and frames with chosen
units. Frames are coded as the planner would code them.

Frames are cropped, mirrored and blended: the teacher can answer for any picture, so a few frames give as much training
data as many (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", 2022). Teacher and
student see the same view; only coding and missing units differ.
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

from sagelink.lab.adapt.unlabelled_frames import AdaptationFrames
from sagelink.pipeline.tasks import stop_signals
from sagelink.pipeline.types import OperatingPoint, Pixels, Units
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.unit_rectangle import best_rectangle_of
from sagelink.transport.codecs import Canvas, codec_by_name

_CROP_PROBABILITY = 0.85
_MIN_CROP_AREA = 0.15  # share of the frame
_MAX_CROP_ASPECT = 1.25
_BLEND_PROBABILITY = 0.5
_CURVE_TEMPERATURE = 0.06  # a curve with an agreement this far below the best is chosen 1/e times as often
_RAW_PROBABILITY = 0.3  # per step: the chosen units are raw instead of coded
_RANDOM_ORDER_PROBABILITY = 0.3  # per frame: units are chosen at random instead of in order
_MIN_UNIT_SHARE, MAX_UNIT_SHARE = 0.1, 0.85  # of the units that are chosen
_MAX_RECTANGLE_ASPECT = 1.6  # approximate
_ENDLESS = 10**9  # steps


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B pictures for the teacher and for the student."""

    clean: NDArray[np.uint8]  # (B, S, S, 3), input of the teacher
    coded: NDArray[np.uint8]  # (B, S, S, 3), input of the student
    units: NDArray[np.int64] | None  # (B, K) units that the student gets, ascending; None: all


class BatchDataset(Dataset[tuple[Batch, Batch]]):
    """Item i holds the batches of step i. It depends on the seed and on i only, so a resumed training is identical."""

    def __init__(
        self,
        frames: AdaptationFrames,
        curves: Sequence[RateQualityCurve],
        canvas: Canvas,
        sizes: tuple[int, int],
        batch_sizes: tuple[int, int],
        seed: int,
    ) -> None:
        """`sizes`: shortest and longest message in bytes; `batch_sizes`: whole frames and frames with chosen units."""
        self._frames = frames
        self._canvas = canvas
        # Curves of zoom crops are used, too: the views here are crops already.
        self._curves = [curve for curve in curves if curve.knob == "quality" and curve.point.units == canvas.units]
        self._log_sizes = np.log(sizes)
        self._batch_sizes = batch_sizes
        self._seed = seed

    def __getitem__(self, step: int) -> tuple[Batch, Batch]:
        whole_count, chosen_count = self._batch_sizes
        rng = np.random.default_rng([self._seed, step])
        rngs = rng.spawn(whole_count + chosen_count)
        views = [self._view(each) for each in rngs[:whole_count]]
        coded = [self._code_whole(view, each) for view, each in zip(views, rngs[:whole_count], strict=True)]
        unit_count = round(rng.uniform(_MIN_UNIT_SHARE, MAX_UNIT_SHARE) * self._canvas.units)
        shape = None if rng.random() < _RAW_PROBABILITY else self._rectangle_shape(unit_count, rng)
        chosen = [self._choose_units(unit_count, shape, each) for each in rngs[whole_count:]]
        pictures, partial, units = zip(*chosen, strict=True)
        # Arrays, not tensors: the data loader passes tensors through shared memory, which is small in a container.
        return Batch(np.stack(views), np.stack(coded), None), Batch(
            np.stack(pictures), np.stack(partial), np.stack(units)
        )

    def from_step(self, step: int) -> Iterator[tuple[Batch, Batch]]:
        """The batches of all steps from `step` on, prepared ahead by one worker process per core."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        loader = DataLoader(
            self, batch_size=None, sampler=range(step, _ENDLESS), num_workers=cores, worker_init_fn=_ignore_stop_signals
        )
        return iter(loader)

    def _view(self, rng: np.random.Generator) -> Pixels:
        """A crop of one frame, or a blend of two crops."""
        view = self._crop(rng)
        if rng.random() < _BLEND_PROBABILITY:
            share = rng.uniform(0.1, 0.5)
            view = np.rint(view * (1 - share) + self._crop(rng) * share).astype(np.uint8)
        return view

    def _crop(self, rng: np.random.Generator) -> Pixels:
        frame = self._frames.padded_views[rng.integers(len(self._frames))]
        side = frame.shape[0]
        width = height = float(side)
        if rng.random() < _CROP_PROBABILITY:
            area, aspect = rng.uniform(_MIN_CROP_AREA, 1.0), np.exp(rng.uniform(-1, 1) * np.log(_MAX_CROP_ASPECT))
            width, height = min(side, side * (area * aspect) ** 0.5), min(side, side * (area / aspect) ** 0.5)
        left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
        size = (self._canvas.pixels, self._canvas.pixels)
        view = Image.fromarray(frame).resize(
            size, Image.Resampling.BICUBIC, (left, top, left + width, top + height), reducing_gap=3.0
        )
        return _mirrored(np.asarray(view), rng.random() < 0.5)

    def _code_whole(self, view: Pixels, rng: np.random.Generator) -> Pixels:
        return self._encode_and_decode(view, np.arange(self._canvas.units), self._random_point(rng, 1.0))

    def _rectangle_shape(self, count: int, rng: np.random.Generator) -> tuple[int, int]:
        """Rows and columns of a rectangle of about `count` units."""
        side = self._canvas.side
        rows = (count * np.exp(rng.uniform(-1, 1) * np.log(_MAX_RECTANGLE_ASPECT))) ** 0.5
        rows = int(np.clip(round(rows), -(-count // side), side))
        return rows, max(1, count // rows)

    def _choose_units(
        self, count: int, shape: tuple[int, int] | None, rng: np.random.Generator
    ) -> tuple[Pixels, Pixels, Units]:
        """A clean picture, the student's picture and its units, ascending.

        Without a shape these are the best `count` units, raw; with a shape the best rectangle of it, coded.
        """
        row, side = rng.integers(len(self._frames)), self._canvas.side
        order, mirror = self._frames.orders[row], rng.random() < 0.5
        picture = _mirrored(self._frames.pictures[row], mirror)
        if rng.random() < _RANDOM_ORDER_PROBABILITY:
            order = rng.permutation(order)
        elif mirror:
            y, x = np.divmod(order, side)
            order = y * side + side - 1 - x
        if shape is None:
            return picture, picture, np.sort(order[:count])
        units = best_rectangle_of(order, *shape, side)
        point = self._random_point(rng, len(units) / self._canvas.units)
        return picture, self._encode_and_decode(picture, units, point), units

    def _random_point(self, rng: np.random.Generator, share: float) -> OperatingPoint:
        """An operating point for a message of a random size that holds this share of the units.

        Curves are drawn at random; the higher the agreement at that size, the likelier the curve.
        """
        size = np.exp(rng.uniform(*self._log_sizes)) / share
        curves = [curve for curve in self._curves if share == 1 or codec_by_name(curve.point.codec).sends != "whole"]
        max_setting_for = [(curve, setting) for curve in curves if (setting := curve.max_setting_for(size)) is not None]
        if not max_setting_for:
            cheapest = min(curves, key=lambda curve: curve.sizes[0])
            return cheapest.at(int(cheapest.settings[0]))
        agreements = np.array([curve.agreement(setting) for curve, setting in max_setting_for])
        odds = np.exp((agreements - agreements.max()) / _CURVE_TEMPERATURE)
        curve, setting = max_setting_for[rng.choice(len(max_setting_for), p=odds / odds.sum())]
        return curve.at(setting)

    def _encode_and_decode(self, picture: Pixels, units: Units, point: OperatingPoint) -> Pixels:
        """The picture after coding; units that are not sent are black."""
        canvas, codec = self._canvas, codec_by_name(point.codec)
        patches = codec.decode(codec.encode(picture, units, point, canvas), units, canvas)
        side, patch = canvas.side, canvas.patch_size
        tiles = np.zeros((canvas.units, patch, patch, 3), np.uint8)
        tiles[units] = patches
        return tiles.reshape(side, side, patch, patch, 3).swapaxes(1, 2).reshape(picture.shape)


def _ignore_stop_signals(_worker: int) -> None:
    """Makes a worker ignore the signals to stop: the trainer process receives them too, and ends its workers itself."""
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)


def _mirrored(picture: Pixels, mirror: bool) -> Pixels:
    return picture[:, ::-1] if mirror else picture
