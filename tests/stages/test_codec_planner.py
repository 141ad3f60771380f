"""The planner: never above the limit, close to the best message of a full search, with few messages coded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.types import OperatingPoint
from sagelink.stages.codec_planner import MAX_MESSAGES, Plan, SizeRatios, plan_packetized, plan_whole
from sagelink.stages.frontier import RateQualityCurve


def curve(codec: str, side: int, points: dict[int, tuple[float, float]]) -> RateQualityCurve:
    settings = sorted(points)
    sizes, agreements = (np.array([points[s][i] for s in settings], float) for i in (0, 1))
    return RateQualityCurve(
        OperatingPoint(codec, 196, side, 0), "quality", np.array(settings, float), sizes, agreements, agreements
    )


SMALL = curve("a", 112, {0: (200, 0.2), 50: (800, 0.6), 100: (3000, 0.7)})
LARGE = curve("a", 224, {0: (500, 0.3), 50: (2000, 0.8), 100: (9000, 0.99)})
UNITS = RateQualityCurve(
    OperatingPoint("raw", 0, 224, 0),
    "units",
    np.array([16.0, 196.0]),
    np.array([9000.0, 110_000.0]),
    np.array([0.1, 1.0]),
    np.array([0.0, 1.0]),
)
CURVES = [SMALL, LARGE, UNITS]


class Coder:
    """Codes a frame whose messages have `hardness` times the bytes of the median frame's, with some noise."""

    def __init__(self, hardness: float = 1.0, noise: float = 0.0) -> None:
        self.hardness, self.noise = hardness, noise
        self.coded: list[OperatingPoint] = []

    def size(self, point: OperatingPoint) -> int:
        (curve,) = (c for c in CURVES if (c.point.codec, c.point.side) == (point.codec, point.side))
        setting = point.quality if curve.knob == "quality" else point.units
        wobble = 1 + self.noise * np.sin(13 * setting + point.side)
        return max(1, round(curve.size(setting) * self.hardness * wobble))

    def __call__(self, point: OperatingPoint, _: float) -> bytes:
        self.coded.append(point)
        return bytes(self.size(point))


@given(
    max_bytes=st.integers(50, 150_000),
    hardness=st.floats(0.3, 3),
    noise=st.floats(0, 0.1),
    slack=st.sampled_from([0.0, 0.02, 0.5]),
)
def test_no_message_is_too_long_and_few_are_coded(max_bytes, hardness, noise, slack):
    coder = Coder(hardness, noise)
    made = plan_whole(CURVES, coder, max_bytes, slack)
    assert 1 <= len(coder.coded) == len(set(coder.coded)) <= MAX_MESSAGES
    if isinstance(made, Plan):
        assert len(made.message) == coder.size(made.point) <= max_bytes
    else:
        assert made == min(map(coder.size, coder.coded)) > max_bytes


@given(max_bytes=st.integers(400, 100_000), hardness=st.floats(0.5, 2))
def test_the_agreement_is_close_to_the_best_possible(max_bytes, hardness):
    coder = Coder(hardness)
    made = plan_whole([SMALL, LARGE], coder, max_bytes)
    best = max(
        (c.agreement(s) for c in (SMALL, LARGE) for s in range(101) if coder.size(c.at(s)) <= max_bytes),
        default=None,
    )
    assert isinstance(made, Plan) == (best is not None)
    if best is not None:
        assert made.agreement >= best - 0.03


@pytest.mark.parametrize("hardness", [0.5, 1.0, 2.0])
def test_most_of_the_limit_is_used(hardness):
    made = plan_whole(CURVES, Coder(hardness), 2500)
    assert isinstance(made, Plan)
    assert 2500 * 0.95 <= len(made.message) <= 2500
    assert made.point.codec == "a"


def test_an_easy_frame_uses_a_limit_below_the_shortest_message_of_a_median_frame():
    made = plan_whole([SMALL, LARGE], Coder(0.2), 150)
    assert isinstance(made, Plan)
    assert 150 * 0.9 <= len(made.message) <= 150


@pytest.mark.parametrize("max_bytes", [700, 2500, 40_000])
@pytest.mark.parametrize("hardness", [0.4, 2.0])
def test_the_next_frame_of_a_camera_begins_with_the_ratios_of_the_last(hardness, max_bytes):
    ratios, first, second, third = SizeRatios(), Coder(hardness), Coder(hardness), Coder(1.3 * hardness)
    made = plan_whole(CURVES, first, max_bytes, ratios=ratios)
    assert isinstance(made, Plan)
    again = plan_whole(CURVES, second, max_bytes, ratios=ratios)
    assert isinstance(again, Plan)
    assert len(second.coded) == 1 <= len(first.coded)
    assert again.agreement >= made.agreement
    harder = plan_whole(CURVES, third, max_bytes, ratios=ratios)
    assert isinstance(harder, Plan)
    assert harder.agreement == pytest.approx(plan_whole(CURVES, Coder(1.3 * hardness), max_bytes).agreement, abs=0.02)


def test_a_message_corrects_the_guesses_for_other_formats():
    """The last frame had ratios of 1 and 3; this one is twice as hard to code."""
    other = replace(LARGE, point=replace(LARGE.point, codec="b"))
    ratios = SizeRatios()
    ratios.update(LARGE, 1.0)
    ratios.begin_frame()
    ratios.update(other, 3.0)
    assert (ratios.of(LARGE), ratios.of(other)) == (3.0, 3.0)
    ratios.update(LARGE, 1.0)
    ratios.begin_frame()
    ratios.update(LARGE, 2.0)
    assert (ratios.of(LARGE), ratios.of(other)) == (2.0, 6.0)
    ratios.update(other, 5.0)
    assert (ratios.of(LARGE), ratios.of(other)) == (2.0, 5.0)


def test_the_guess_for_a_format_without_messages_does_not_drift():
    """A still scene: the first message of each frame is 20 % too long, the second one is as long as expected."""
    other = replace(LARGE, point=replace(LARGE.point, codec="b"))
    ratios = SizeRatios()
    ratios.update(LARGE, 1.0)
    ratios.update(other, 3.0)
    for _ in range(1000):
        ratios.begin_frame()
        ratios.update(LARGE, 1.2)
        ratios.update(LARGE, 1.0)
    assert ratios.of(other) == pytest.approx(3.0)


def test_the_guess_stays_near_other_formats_when_they_take_turns():
    """The format that is coded first in a frame turns out twice as large as its guess, the other one half as large."""
    turns = [LARGE, replace(LARGE, point=replace(LARGE.point, codec="b"))]
    never = replace(LARGE, point=replace(LARGE.point, codec="c"))
    ratios = SizeRatios()
    ratios.update(never, 1.0)
    for _ in range(1000):
        ratios.begin_frame()
        ratios.update(turns[0], 2.0)
        ratios.update(turns[1], 1.0)
        turns.reverse()
    assert 0.5 <= ratios.of(never) <= 8.0


def test_slack_gives_up_little_agreement_for_many_bytes():
    everything = plan_whole(CURVES, Coder(), 110_000)
    assert (everything.point.units, everything.agreement) == (196, 1.0)
    coder = Coder()
    cheap = plan_whole(CURVES, coder, 110_000, slack=0.02)
    assert cheap.point == LARGE.at(98)
    assert len(coder.coded) == 1  # far below the limit: no second message is coded
    assert cheap.agreement >= 0.98


def test_slack_is_measured_by_what_fits_of_this_frame():
    """The first message of a frame that is easy to code may be far shorter than expected."""
    coder = Coder(0.2)
    easy = plan_whole(CURVES, coder, 2600, slack=0.15)
    assert easy.agreement >= LARGE.agreement(100) - 0.15
    assert len(coder.coded) > 1


def test_a_hard_frame_gets_a_lower_resolution():
    assert plan_whole(CURVES, Coder(0.5), 1500).point.side == 224
    assert plan_whole(CURVES, Coder(3.0), 1500).point.side == 112


@given(
    max_bytes=st.integers(1500, 150_000),
    hardness=st.floats(0.3, 3),
    error=st.floats(0.9, 1.1),
    fails=st.sets(st.integers(0, 100), max_size=20),
)
def test_packetized_messages_are_few_and_estimated_first(
    max_bytes: int, hardness: float, error: float, fails: set[int]
) -> None:
    coder = Coder(hardness, noise=0.03)
    estimated: list[OperatingPoint] = []

    def estimate_bytes(point: OperatingPoint) -> int:
        estimated.append(point)
        return round(error * coder.size(point))

    def code(point: OperatingPoint, expected: float) -> bytes | None:
        message = coder(point, expected)
        return None if point.quality in fails else message

    made = plan_packetized(CURVES, code, estimate_bytes, max_bytes)
    assert len(estimated) <= 2
    assert len(coder.coded) <= 3
    if isinstance(made, Plan):
        assert len(made.message) <= max_bytes
    else:
        assert made > max_bytes


def test_a_frame_may_be_hard_for_one_format_and_easy_for_another():
    """Both formats cost the same on the median frame; with one common ratio, the search would alternate."""
    other = curve("b", 224, {0: (550, 0.3), 50: (2100, 0.8), 100: (8800, 0.99)})
    file = curve("b-frame", 224, {0: (840, 0.3), 50: (2390, 0.8), 100: (9090, 0.99)})
    hardness = {"a": 2.5, "b": 1.1}
    coded: list[OperatingPoint] = []

    def code(point: OperatingPoint, _: float) -> bytes:
        coded.append(point)
        (curve,) = (c for c in (LARGE, other, file) if c.point.codec == point.codec)
        return bytes(round(curve.size(point.quality) * hardness[point.codec[0]]))

    made = plan_whole([LARGE, other, file], code, 6000)
    assert made.point.codec == "b"
    assert 6000 * 0.93 <= len(made.message) <= 6000
    assert len(coded) <= 4
    assert "b-frame" not in {point.codec for point in coded}  # the ratio of a format counts for its files too


def test_a_plan_has_the_weight_of_its_point():
    made = plan_whole([UNITS], Coder(), 60_000)
    assert made.weight == pytest.approx((made.point.units - 16) / 180)


def test_when_nothing_fits_the_bytes_of_the_shortest_message_are_returned():
    coder = Coder(2.0)
    assert plan_whole([SMALL, LARGE], coder, 100) == 400
