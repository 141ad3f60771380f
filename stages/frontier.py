"""The measured frontier: what each operating point costs, what it is worth, and how much its answer weighs.

`sagelink calibrate` measures one for a server model; those of the pairs that ship lie in models/frontiers/. A line is
a codec with one knob left to turn, its quality or its number of units; along it bytes, agreement and weight grow.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sagelink import models
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import OperatingPoint
from sagelink.transport.codecs import Canvas

log = logging.getLogger(__name__)

SHIPPED = Path(models.__file__).parent / "frontiers"
Knob: TypeAlias = Literal["quality", "units"]
_Share = Annotated[float, Field(ge=0, le=1)]
_Measured = tuple[Annotated[int, Field(gt=0)], _Share, Annotated[float, Field(ge=0, allow_inf_nan=False)]]


class CurveModel(BaseModel):
    """A line as it stands in the file."""

    model_config = ConfigDict(extra="forbid")

    codec: str
    side: int = Field(gt=0, description="Pixels on a side of the coded picture")
    units: int | None = Field(None, gt=0, description="Left out where it is the knob")
    quality: int | None = Field(None, ge=0, le=100, description="Left out where it is the knob")
    view: float | None = Field(None, gt=0, lt=1, description="Side of the part of the picture that is sent, as a share")
    points: dict[int, _Measured] = Field(
        min_length=1, description="By setting of the knob: median bytes of a message, agreement, weight of the answer"
    )

    @model_validator(mode="after")
    def _one_knob_that_pays(self) -> CurveModel:
        if (self.units is None) == (self.quality is None):
            raise ValueError("either `units` or `quality` is given; the other is the knob")
        rows = [self.points[knob] for knob in sorted(self.points)]
        if any(list(column) != sorted(column) for column in zip(*rows, strict=True)) or min(self.points) < 0:
            raise ValueError("bytes, agreement and weight never fall as the knob is turned up from 0")
        return self


class FrontierModel(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid")

    server: str = Field(description="Name of the server model")
    units: int = Field(gt=0, description="Units of its grid")
    pixels: int = Field(gt=0, description="Pixels on a side of its picture")
    lines: list[CurveModel] = Field(min_length=1)


@dataclass(frozen=True, slots=True, eq=False)
class RateQualityCurve:
    """A codec with one knob; the arrays (P,) never fall."""

    point: OperatingPoint
    knob: Knob
    settings: NDArray[np.float64]
    sizes: NDArray[np.float64]  # bytes of the median frame's whole message
    agreements: NDArray[np.float64]
    weights: NDArray[np.float64]

    def at(self, setting: int) -> OperatingPoint:
        return replace(self.point, quality=setting) if self.knob == "quality" else replace(self.point, units=setting)

    def size(self, setting: float) -> float:
        return float(np.exp(np.interp(setting, self.settings, np.log(self.sizes))))

    def agreement(self, setting: float) -> float:
        return float(np.interp(setting, self.settings, self.agreements))

    def weight(self, setting: float) -> float:
        return float(np.interp(setting, self.settings, self.weights))

    def affordable(self, size: float) -> int | None:
        """The highest setting whose message is expected to have at most `size` bytes; None when none is."""
        if size < self.sizes[0]:
            return None
        # The small excess keeps the setting of a measured size from falling to the one below by rounding.
        return int(np.interp(np.log(size), np.log(self.sizes), self.settings) + 1e-6)

    def min_setting_for(self, agreement: float) -> int | None:
        """The lowest setting of at least that agreement; None when there is none."""
        if agreement > self.agreements[-1]:
            return None
        above = int(np.searchsorted(self.agreements, agreement))
        if above == 0:
            return int(self.settings[0])
        pair = slice(above - 1, above + 1)
        return int(np.ceil(np.interp(agreement, self.agreements[pair], self.settings[pair]) - 1e-6))

    def with_weight(self) -> RateQualityCurve | None:
        """The part of the line whose answers have a weight; None when nothing is left."""
        return self._part(self.settings[self.weights > 0])

    def limited(self, fewest: int, most: int) -> RateQualityCurve | None:
        """The part of the line with `fewest` to `most` units; None when nothing is left."""
        if self.knob == "quality":
            return self if fewest <= self.point.units <= most else None
        ends = [end for end in (fewest, most) if self.settings[0] <= end <= self.settings[-1]]
        settings = np.unique([*self.settings[(self.settings >= fewest) & (self.settings <= most)], *ends])
        return self._part(settings)

    def _part(self, settings: NDArray[np.float64]) -> RateQualityCurve | None:
        if not len(settings):
            return None
        sizes, agreements, weights = (
            np.array([measure(setting) for setting in settings]) for measure in (self.size, self.agreement, self.weight)
        )
        return replace(self, settings=settings, sizes=sizes, agreements=agreements, weights=weights)


def read_frontier(path: Path, canvas: Canvas) -> list[RateQualityCurve]:
    """The lines of a frontier file, for a canvas. Raises UsageError.

    A file of another grid is scaled to this one: a point with half of the units at half of the resolution stays that.
    """
    try:
        model = FrontierModel.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"frontier {str(path)!r} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"frontier {str(path)!r} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"frontier {str(path)!r}: {where}: {first['msg']}") from None
    return [_line(line, canvas, canvas.units / model.units, canvas.pixels / model.pixels) for line in model.lines]


def find_frontier(server: str, path: Path | None, checkpoint: Path | None = None) -> Path:
    """The file that the user named; else the one beside the checkpoint, of its name with .yaml; else the one that ships
    for the server model; else a stand-in, with a word in the log."""
    if path is not None:
        return path
    beside = [] if checkpoint is None else [checkpoint.with_suffix(".yaml")]
    for known in [*beside, SHIPPED / f"{server}.yaml"]:
        if known.is_file():
            return known
    log.warning("event=not_calibrated server=%s frontier=%s: run `sagelink calibrate`", server, _STAND_IN)
    return SHIPPED / _STAND_IN


_STAND_IN = "vit_tiny_patch16_224.augreg_in21k_ft_in1k.yaml"


def _line(line: CurveModel, canvas: Canvas, units_scale: float, pixels_scale: float) -> RateQualityCurve:
    settings = sorted(line.points)
    sizes, agreements, weights = (
        np.array(column, float) for column in zip(*(line.points[s] for s in settings), strict=True)
    )
    side = min(canvas.pixels, round(line.side * pixels_scale / 8) * 8)
    if line.units is None:
        counts = np.clip(np.rint(np.array(settings) * units_scale), 1, canvas.units)
        counts, first = np.unique(counts, return_index=True)
        base = OperatingPoint(line.codec, 0, side, line.quality or 0, line.view or 1.0)
        return RateQualityCurve(base, "units", counts, sizes[first], agreements[first], weights[first])
    units = min(canvas.units, max(1, round(line.units * units_scale)))
    base = OperatingPoint(line.codec, units, side, 0, line.view or 1.0)
    return RateQualityCurve(base, "quality", np.array(settings, float), sizes, agreements, weights)
