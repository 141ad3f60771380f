"""Expected size and agreement of delta messages: measured curves and numbers of units in, `RateQualityCurve`s out.

A delta message with n new units, for a server that remembers m units, has the size of n units and the agreement of
m + n units. Only curves whose knob is the number of units are used, and only codecs that code each unit on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sagelink.pipeline.types import OperatingPoint
from sagelink.stages.frontier import RateQualityCurve
from sagelink.transport.codecs import codec_by_name
from sagelink.transport.delta_message import delta_overhead_bytes


@dataclass(frozen=True, slots=True)
class DeltaCurves:
    """The measured curves whose knob is the number of units, and the limits of a delta message."""

    measured: Sequence[RateQualityCurve]
    units: int  # of the grid
    min_units: int  # new units in a message
    max_units: int

    @classmethod
    def from_curves(cls, curves: Sequence[RateQualityCurve], units: int, min_units: int, max_units: int) -> DeltaCurves:
        usable = [c for c in curves if c.knob == "units" and codec_by_name(c.point.codec).sends == "units"]
        return cls(usable, units, min_units, max_units)

    def curves(self, known_units: int, new_units: int) -> list[RateQualityCurve]:
        """Curves of up to `new_units`, with positive weight, for a server that remembers `known_units`."""
        overhead = delta_overhead_bytes(self.units, known_units)
        shifted = (self._shifted(curve, known_units, new_units, overhead) for curve in self.measured)
        return [weighted for curve in shifted if curve is not None and (weighted := curve.with_weight()) is not None]

    def standalone_weight(self, point: OperatingPoint) -> float:
        """The weight of the answer to the units of a message without the remembered ones."""
        for curve in self.measured:
            if (curve.point.codec, curve.point.quality) == (point.codec, point.quality):
                return curve.weight(point.units) if point.units >= curve.settings[0] else 0.0
        return 0.0

    def _shifted(
        self, curve: RateQualityCurve, known_units: int, new_units: int, overhead: int
    ) -> RateQualityCurve | None:
        """The curve over the number of new units; None where no number is possible. `overhead` is in bytes."""
        low = max(self.min_units, int(curve.settings[0]) - known_units)
        high = min(new_units, self.max_units, self.units - known_units)
        if low > high:
            return None
        settings = np.unique([low, high, *(curve.settings[(curve.settings > low) & (curve.settings < high)])])
        return replace(
            curve,
            settings=settings,
            # Below the smallest measured message the size is taken as proportional to the number of units.
            sizes=np.array([curve.size(n) * min(1.0, n / curve.settings[0]) + overhead for n in settings]),
            agreements=np.array([curve.agreement(n + known_units) for n in settings]),
            weights=np.array([curve.weight(n + known_units) for n in settings]),
        )


def expected_agreement(curves: Sequence[RateQualityCurve], max_bytes: int) -> float:
    """The agreement of the best message of at most `max_bytes` for the median frame; -1 where none fits."""
    settings = [(curve, curve.max_setting_for(max_bytes)) for curve in curves]
    return max((curve.agreement(setting) for curve, setting in settings if setting is not None), default=-1.0)
