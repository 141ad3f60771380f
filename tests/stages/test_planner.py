"""The planner: under the cap always, near the best that a search of everything would find, in a handful of messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.types import OperatingPoint
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.planner import MOST_CODED, Plan, plan


def line(codec: str, side: int, points: dict[int, tuple[float, float]]) -> RateQualityCurve:
    settings = sorted(points)
    sizes, agreements = (np.array([points[s][i] for s in settings], float) for i in (0, 1))
    return RateQualityCurve(
        OperatingPoint(codec, 196, side, 0), "quality", np.array(settings, float), sizes, agreements, agreements
    )


SMALL = line("a", 112, {0: (200, 0.2), 50: (800, 0.6), 100: (3000, 0.7)})
LARGE = line("a", 224, {0: (500, 0.3), 50: (2000, 0.8), 100: (9000, 0.99)})
UNITS = RateQualityCurve(
    OperatingPoint("raw", 0, 224, 0),
    "units",
    np.array([16.0, 196.0]),
    np.array([9000.0, 110_000.0]),
    np.array([0.1, 1.0]),
    np.array([0.0, 1.0]),
)
LINES = [SMALL, LARGE, UNITS]


class Coder:
    """Codes a frame that is `hardness` times as large as the median one, unevenly."""

    def __init__(self, hardness: float = 1.0, noise: float = 0.0) -> None:
        self.hardness, self.noise = hardness, noise
        self.coded: list[OperatingPoint] = []

    def size(self, point: OperatingPoint) -> int:
        (of,) = (c for c in LINES if (c.point.codec, c.point.side) == (point.codec, point.side))
        setting = point.quality if of.knob == "quality" else point.units
        wobble = 1 + self.noise * np.sin(13 * setting + point.side)
        return max(1, round(of.size(setting) * self.hardness * wobble))

    def __call__(self, point: OperatingPoint, _: float) -> bytes:
        self.coded.append(point)
        return bytes(self.size(point))


@given(
    cap=st.integers(50, 150_000),
    hardness=st.floats(0.3, 3),
    noise=st.floats(0, 0.1),
    slack=st.sampled_from([0.0, 0.02, 0.5]),
)
def test_the_cap_holds_and_few_messages_are_coded(cap, hardness, noise, slack):
    coder = Coder(hardness, noise)
    made = plan(LINES, coder, cap, slack)
    assert 1 <= len(coder.coded) == len(set(coder.coded)) <= MOST_CODED
    if isinstance(made, Plan):
        assert len(made.message) == coder.size(made.point) <= cap
    else:
        assert made == min(map(coder.size, coder.coded)) > cap


@given(cap=st.integers(400, 100_000), hardness=st.floats(0.5, 2))
def test_the_plan_is_worth_nearly_as_much_as_the_best_there_is(cap, hardness):
    coder = Coder(hardness)
    made = plan([SMALL, LARGE], coder, cap)
    best = max(
        (of.agreement(s) for of in (SMALL, LARGE) for s in range(101) if coder.size(of.at(s)) <= cap),
        default=None,
    )
    assert isinstance(made, Plan) == (best is not None)
    if best is not None:
        assert made.agreement >= best - 0.03


@pytest.mark.parametrize("hardness", [0.5, 1.0, 2.0])
def test_the_cap_is_used(hardness):
    made = plan(LINES, Coder(hardness), 2500)
    assert isinstance(made, Plan)
    assert 2500 * 0.95 <= len(made.message) <= 2500
    assert made.point.codec == "a"


def test_little_agreement_is_given_up_for_many_bytes():
    everything = plan(LINES, Coder(), 110_000)
    assert (everything.point.units, everything.agreement) == (196, 1.0)
    coder = Coder()
    cheap = plan(LINES, coder, 110_000, slack=0.02)
    assert cheap.point == LARGE.at(98)
    assert len(coder.coded) == 1  # the cap is far: no better fit is looked for
    assert cheap.agreement >= 0.98


def test_a_hard_frame_gets_a_lower_resolution():
    assert plan(LINES, Coder(0.5), 1500).point.side == 224
    assert plan(LINES, Coder(3.0), 1500).point.side == 112


@given(
    cap=st.integers(1500, 150_000),
    hardness=st.floats(0.3, 3),
    error=st.floats(0.9, 1.1),
    fails=st.sets(st.integers(0, 100), max_size=20),
)
def test_messages_that_are_dear_are_few_and_looked_at_before(
    cap: int, hardness: float, error: float, fails: set[int]
) -> None:
    coder = Coder(hardness, noise=0.03)
    looked: list[OperatingPoint] = []

    def probe(point: OperatingPoint) -> int:
        looked.append(point)
        return round(error * coder.size(point))

    def code(point: OperatingPoint, expected: float) -> bytes | None:
        message = coder(point, expected)
        return None if point.quality in fails else message

    made = plan(LINES, code, cap, probe=probe)
    assert len(looked) <= 2
    assert len(coder.coded) <= 3
    if isinstance(made, Plan):
        assert len(made.message) <= cap
    else:
        assert made > cap


def test_a_frame_may_be_hard_for_one_format_and_easy_for_another():
    """Both formats look alike on the median frame, so one ratio for both would send the search to and fro."""
    other = line("b", 224, {0: (550, 0.3), 50: (2100, 0.8), 100: (8800, 0.99)})
    file = line("b-frame", 224, {0: (840, 0.3), 50: (2390, 0.8), 100: (9090, 0.99)})
    hardness = {"a": 2.5, "b": 1.1}
    coded: list[OperatingPoint] = []

    def code(point: OperatingPoint, _: float) -> bytes:
        coded.append(point)
        (of,) = (each for each in (LARGE, other, file) if each.point.codec == point.codec)
        return bytes(round(of.size(point.quality) * hardness[point.codec[0]]))

    made = plan([LARGE, other, file], code, 6000)
    assert made.point.codec == "b"
    assert 6000 * 0.93 <= len(made.message) <= 6000
    assert len(coded) <= 4
    assert "b-frame" not in {point.codec for point in coded}  # what a format costs is known for its files too


def test_the_weight_is_that_of_the_point():
    made = plan([UNITS], Coder(), 60_000)
    assert made.weight == pytest.approx((made.point.units - 16) / 180)


def test_when_nothing_fits_the_shortest_is_told():
    coder = Coder(2.0)
    assert plan([SMALL, LARGE], coder, 100) == 400
