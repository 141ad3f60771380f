from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sagelink.pipeline.types import OperatingPoint, SceneEstimate
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.rate_control import RateControl, RateControlConfig, UtilityCurve

NEW = SceneEstimate(np.zeros(3, np.float32), 0.0, None, math.nan, 0, 0.0, 5.0)
HELD = replace(NEW, server_weight=1.0, server_seq=0, server_age_s=0.1)


def line(sizes: list[float], weights: list[float]) -> RateQualityCurve:
    settings = np.arange(len(sizes), dtype=float)
    point = OperatingPoint("avif", 196, 224, 0)
    return RateQualityCurve(point, "quality", settings, np.array(sizes), np.array(weights), np.array(weights))


WORTH = UtilityCurve.from_curves([line([100, 400, 1600], [0.1, 0.5, 0.6]), line([300, 3000], [0.1, 1.0])])


def most(
    estimate: SceneEstimate, doubt: float = 0.8, allowed: float = 2000.0, limit: float = 2000.0, **settings: object
):
    return RateControl(RateControlConfig(**settings), WORTH).max_bytes(doubt, estimate, allowed, limit, 1.0)


def test_worth_is_the_best_of_all_lines_and_never_falls() -> None:
    assert WORTH.weight(99) == 0
    assert WORTH.weight(400) == pytest.approx(0.5)
    assert WORTH.weight(1e9) == pytest.approx(1.0)
    values = [WORTH.weight(size) for size in range(100, 4000, 50)]
    assert values == sorted(values)


def test_the_knee_buys_most_weight_a_byte() -> None:
    knee = WORTH.knee(2000)
    best = max(WORTH.weight(size) / size for size in range(100, 2001, 10))
    assert WORTH.weight(knee) / knee >= best * 0.999
    assert WORTH.knee(120) == 120  # below the knee more is better


def test_a_new_scene_in_doubt_may_have_all_that_the_window_holds() -> None:
    assert most(NEW) == 2000
    assert most(NEW, save=True) == 2000


def test_no_message_where_there_is_no_doubt() -> None:
    assert most(NEW, doubt=0.01) is None


def test_no_message_that_is_too_short_to_weigh_anything() -> None:
    assert most(NEW, allowed=50) is None


def test_known_scenes_gain_less_from_a_message() -> None:
    threshold = 0.15
    assert most(NEW, doubt=0.5, least_gain=threshold) is not None
    assert most(HELD, doubt=0.5, least_gain=threshold) is None


def test_saving_waits_until_the_window_has_room_for_a_useful_message() -> None:
    assert most(NEW, allowed=150) is not None
    assert most(NEW, allowed=150, save=True) is None


def test_saving_sends_no_more_than_the_knee_about_a_known_scene() -> None:
    size = most(HELD, save=True, least_gain=0.0)
    assert size == int(WORTH.knee(2000)) < 2000


def test_saving_keeps_bits_where_scenes_change_often() -> None:
    hectic, calm = replace(HELD, mean_scene_s=0.2), replace(HELD, mean_scene_s=600.0)
    assert most(hectic, doubt=0.1, save=True, least_gain=0.0) is None
    assert most(calm, doubt=0.1, save=True, least_gain=0.0) is not None


def test_without_a_limit_the_longest_useful_message_is_allowed() -> None:
    assert most(NEW, allowed=math.inf, limit=math.inf, save=True) == 3000
