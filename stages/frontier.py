"""Reads measured frontiers: a YAML file in, `RateQualityCurve`s out (bytes, agreement and weight by operating point).

`sagelink calibrate` measures a frontier for a server model; those of the shipped models are in models/frontiers/. A
curve is a codec with one free knob: its quality or its number of units. Bytes, agreement and weight never fall along
it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sagelink import models
from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.config.errors import explain
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, read_yaml
from sagelink.pipeline.types import OperatingPoint
from sagelink.transport.codecs import Canvas

log = logging.getLogger(__name__)

SHIPPED = Path(models.__file__).parent / "frontiers"
_MAX_PARSED = 8  # files
Knob: TypeAlias = Literal["quality", "units"]
_Share = Annotated[float, Field(ge=0, le=1)]
_Measured = tuple[Annotated[int, Field(gt=0)], _Share, Annotated[float, Field(ge=0, allow_inf_nan=False)]]

_Points = Annotated[
    dict[int, _Measured],
    Accepts(
        "mapping of the knob's setting to [bytes (1 or more), agreement (0 to 1), weight (0 or more)]",
        "{30: [1200, 0.8, 0.5]}",
    ),
]


class CurveModel(BaseModel):
    """A curve in the file."""

    model_config = ConfigDict(extra="forbid")

    codec: str
    side: int = Field(ge=8, le=16_384, description="Pixels per side of the coded picture")
    units: int | None = Field(None, gt=0, le=65_536, description="Units per message; omitted where it is the knob")
    quality: int | None = Field(None, ge=0, le=100, description="Quality of the codec; omitted where it is the knob")
    view: float | None = Field(None, gt=0, lt=1, description="Side of the sent crop, as a share of the picture's side")
    points: _Points = Field(
        min_length=1,
        description="By setting of the knob: median bytes of a message, agreement (0..1), weight of the answer",
    )

    @model_validator(mode="after")
    def _one_rising_knob(self) -> CurveModel:
        if (self.units is None) == (self.quality is None):
            raise ValueError("either `units` or `quality` is given; the other is the knob")
        rows = [self.points[knob] for knob in sorted(self.points)]
        if any(list(column) != sorted(column) for column in zip(*rows, strict=True)) or min(self.points) < 0:
            raise ValueError("bytes, agreement and weight never fall as the knob is turned up from 0")
        if max(self.points) > (100 if self.quality is None else 65_536):
            raise ValueError("the knob is a quality of 0..100, or up to 65536 units")
        return self


class FrontierModel(BaseModel):
    """The content of a frontier file."""

    model_config = ConfigDict(extra="forbid")

    server: str = Field(description="Name of the server model")
    units: int = Field(gt=0, le=65_536, description="Units of its grid")
    pixels: int = Field(gt=0, le=16_384, description="Pixels per side of its picture")
    lines: Annotated[list[CurveModel], Accepts("list of one or more curves", "[{codec: webp, ...}]")] = Field(
        min_length=1, description="The curves"
    )


@dataclass(frozen=True, slots=True, eq=False)
class RateQualityCurve:
    """Bytes, agreement and weight of a codec by the setting of one knob; the arrays (P,) never fall."""

    point: OperatingPoint  # all settings but the knob's
    knob: Knob
    settings: NDArray[np.float64]
    sizes: NDArray[np.float64]  # bytes of the median frame's whole message
    agreements: NDArray[np.float64]
    weights: NDArray[np.float64]

    def at(self, setting: int) -> OperatingPoint:
        """The operating point at a setting of the knob."""
        return replace(self.point, quality=setting) if self.knob == "quality" else replace(self.point, units=setting)

    def size(self, setting: float) -> float:
        """Expected bytes of the median frame's message."""
        return float(np.exp(np.interp(setting, self.settings, np.log(self.sizes))))

    def agreement(self, setting: float) -> float:
        """Expected agreement with the server's answer to the full frame, 0 to 1."""
        return float(np.interp(setting, self.settings, self.agreements))

    def weight(self, setting: float) -> float:
        """Weight of the server's answer in the fused one."""
        return float(np.interp(setting, self.settings, self.weights))

    def max_setting_for(self, size: float) -> int | None:
        """The highest setting with at most `size` expected bytes; None when there is none."""
        if size < self.sizes[0]:
            return None
        # The small excess: rounding must not turn the setting of a measured size into the one below.
        return int(np.interp(np.log(size), np.log(self.sizes), self.settings) + 1e-6)

    def min_setting_for(self, agreement: float) -> int | None:
        """The lowest setting with at least this agreement; None when there is none."""
        if agreement > self.agreements[-1]:
            return None
        above = int(np.searchsorted(self.agreements, agreement))
        if above == 0:
            return int(self.settings[0])
        pair = slice(above - 1, above + 1)
        return int(np.ceil(np.interp(agreement, self.agreements[pair], self.settings[pair]) - 1e-6))

    def with_weight(self) -> RateQualityCurve | None:
        """The part of the curve with a positive weight; None when nothing is left."""
        return self._part(self.settings[self.weights > 0])

    def limited(self, min_units: int, max_units: int) -> RateQualityCurve | None:
        """The part of the curve with `min_units` to `max_units` units; None when nothing is left."""
        if self.knob == "quality":
            return self if min_units <= self.point.units <= max_units else None
        ends = [end for end in (min_units, max_units) if self.settings[0] <= end <= self.settings[-1]]
        settings = np.unique([*self.settings[(self.settings >= min_units) & (self.settings <= max_units)], *ends])
        return self._part(settings)

    def _part(self, settings: NDArray[np.float64]) -> RateQualityCurve | None:
        if not len(settings):
            return None
        sizes, agreements, weights = (
            np.array([measure(setting) for setting in settings]) for measure in (self.size, self.agreement, self.weight)
        )
        return replace(self, settings=settings, sizes=sizes, agreements=agreements, weights=weights)


def read_frontier(path: Path, canvas: Canvas) -> list[RateQualityCurve]:
    """The curves of a frontier file, scaled to the grid of `canvas`. Raises UsageError.

    Scaling keeps shares: half of the units at half of the resolution stays so on another grid.
    """
    try:
        stat = path.stat()
        model = _parsed(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise UsageError(f"frontier {str(path)!r} cannot be read: {error.strerror}") from None
    except DocumentError as error:
        raise UsageError(f"frontier {str(path)!r} is not YAML: {error}") from None
    except ValidationError as error:
        raise UsageError(f"frontier {str(path)!r}: {explain(error, FrontierModel)[0]}") from None
    units_scale, pixels_scale = canvas.units / model.units, canvas.pixels / model.pixels
    return [_curve(line, canvas, units_scale, pixels_scale) for line in model.lines]


@lru_cache(_MAX_PARSED)
def _parsed(path: Path, _mtime_ns: int, _size: int) -> FrontierModel:
    """A run reads its file several times, and a file takes some 0.2 s. The arguments change when the file does."""
    return FrontierModel.model_validate(read_yaml(path))


def find_frontier(server: str, path: Path | None, checkpoint: Path | None = None) -> Path:
    """The frontier file of a server model.

    It is `path` where the user named one; else the file beside the checkpoint with the same name and .yaml; else the
    shipped one of the model; else the one of another model, with a warning in the log.
    """
    if path is not None:
        return path
    beside = [] if checkpoint is None else [checkpoint.with_suffix(".yaml")]
    for candidate in [*beside, SHIPPED / f"{server}.yaml"]:
        if candidate.is_file():
            return candidate
    log.warning("event=not_calibrated server=%s frontier=%s: run `sagelink calibrate`", server, _STAND_IN)
    return SHIPPED / _STAND_IN


_STAND_IN = "vit_tiny_patch16_224.augreg_in21k_ft_in1k.yaml"


def _curve(model: CurveModel, canvas: Canvas, units_scale: float, pixels_scale: float) -> RateQualityCurve:
    settings = sorted(model.points)
    sizes, agreements, weights = (
        np.array(column, float) for column in zip(*(model.points[s] for s in settings), strict=True)
    )
    side = min(canvas.pixels, max(8, round(model.side * pixels_scale / 8) * 8))
    if model.units is None:
        counts = np.clip(np.rint(np.array(settings) * units_scale), 1, canvas.units)
        counts, first = np.unique(counts, return_index=True)
        base = OperatingPoint(model.codec, 0, side, model.quality or 0, model.view or 1.0)
        return RateQualityCurve(base, "units", counts, sizes[first], agreements[first], weights[first])
    units = min(canvas.units, max(1, round(model.units * units_scale)))
    base = OperatingPoint(model.codec, units, side, 0, model.view or 1.0)
    return RateQualityCurve(base, "quality", np.array(settings, float), sizes, agreements, weights)
