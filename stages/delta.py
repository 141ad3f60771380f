"""What messages are worth that complete what the server remembers: the frontier's lines, further along.

Only codecs whose units stand for themselves are used, and only along their number of units: n units that complete m
are worth what m + n are, and cost what n do.
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
    """The frontier's lines whose knob is the number of units, as they were measured."""

    measured: Sequence[RateQualityCurve]
    units: int  # of the grid
    fewest: int  # new units in a message
    most: int

    @classmethod
    def from_curves(cls, lines: Sequence[RateQualityCurve], units: int, fewest: int, most: int) -> DeltaCurves:
        chosen = [line for line in lines if line.knob == "units" and codec_by_name(line.point.codec).sends == "units"]
        return cls(chosen, units, fewest, most)

    def curves(self, kept: int, rest: int) -> list[RateQualityCurve]:
        """For messages of up to `rest` units that complete `kept`; only where their answers have a weight."""
        overhead = delta_overhead_bytes(self.units, kept)
        moved = (self._moved(line, kept, rest, overhead) for line in self.measured)
        return [line for each in moved if each is not None and (line := each.with_weight()) is not None]

    def standalone_weight(self, point: OperatingPoint) -> float:
        """The weight of the answer to the units of a message alone."""
        for line in self.measured:
            if (line.point.codec, line.point.quality) == (point.codec, point.quality):
                return line.weight(point.units) if point.units >= line.settings[0] else 0.0
        return 0.0

    def _moved(self, line: RateQualityCurve, kept: int, rest: int, overhead: int) -> RateQualityCurve | None:
        low, high = max(self.fewest, int(line.settings[0]) - kept), min(rest, self.most, self.units - kept)
        if low > high:
            return None
        settings = np.unique([low, high, *(line.settings[(line.settings > low) & (line.settings < high)])])
        return replace(
            line,
            settings=settings,
            # Below what was measured a message shrinks with its units.
            sizes=np.array([line.size(n) * min(1.0, n / line.settings[0]) + overhead for n in settings]),
            agreements=np.array([line.agreement(n + kept) for n in settings]),
            weights=np.array([line.weight(n + kept) for n in settings]),
        )


def expected(lines: Sequence[RateQualityCurve], cap_bytes: int) -> float:
    """The agreement of the best message of the median frame; below 0 where none fits."""
    found = [(line, line.affordable(cap_bytes)) for line in lines]
    return max((line.agreement(most) for line, most in found if most is not None), default=-1.0)
