"""What a message is worth: the utility curve, the limit of a message, and the stage that applies it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.camera_accounts import CameraShare, open_accounts
from sagelink.pipeline.config_file import load_config
from sagelink.pipeline.types import Drop, EdgeOnly, Metered, OperatingPoint, SceneEstimate
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.rate_control import RateControl, RateControlConfig, UtilityCurve, ValueGate
from sagelink.stages.scene_fusion import SceneConfig
from sagelink.stages.scene_tracker import SceneTracker
from tests.fakes import make_metered, make_scored

UNSURE = (0.4, 0.3, 0.1, 0.1, 0.1)
NEW = SceneEstimate(np.zeros(3, np.float32), 0.0, None, math.nan, 0, 0.0, 5.0)
KNOWN = replace(NEW, server_weight=1.0, server_seq=0, server_age_s=0.1)


def curve(sizes: list[float], weights: list[float]) -> RateQualityCurve:
    settings = np.arange(len(sizes), dtype=float)
    point = OperatingPoint("avif", 196, 224, 0)
    return RateQualityCurve(point, "quality", settings, np.array(sizes), np.array(weights), np.array(weights))


UTILITY = UtilityCurve.from_curves([curve([100, 400, 1600], [0.1, 0.5, 0.6]), curve([300, 3000], [0.1, 1.0])])


def max_bytes(
    estimate: SceneEstimate, doubt: float = 0.8, allowed: float = 2000.0, limit: float = 2000.0, **settings: object
):
    return RateControl(RateControlConfig(**settings), UTILITY).max_bytes(doubt, estimate, allowed, limit, 1.0)


def test_utility_is_the_upper_envelope_of_all_curves_and_never_falls() -> None:
    assert UTILITY.weight(99) == 0
    assert UTILITY.weight(400) == pytest.approx(0.5)
    assert UTILITY.weight(1e9) == pytest.approx(1.0)
    values = [UTILITY.weight(size) for size in range(100, 4000, 50)]
    assert values == sorted(values)


def test_the_knee_has_the_most_weight_per_byte() -> None:
    knee = UTILITY.knee(2000)
    best = max(UTILITY.weight(size) / size for size in range(100, 2001, 10))
    assert UTILITY.weight(knee) / knee >= best * 0.999
    assert UTILITY.knee(120) == 120  # below the knee, a longer message is better


def test_a_new_scene_in_doubt_may_use_the_whole_window() -> None:
    assert max_bytes(NEW) == 2000
    assert max_bytes(NEW, save=True) == 2000


def test_without_doubt_there_is_no_message() -> None:
    assert max_bytes(NEW, doubt=0.01) is None


def test_a_message_too_short_to_have_weight_is_not_sent() -> None:
    assert max_bytes(NEW, allowed=50) is None


def test_known_scenes_gain_less_from_a_message() -> None:
    threshold = 0.15
    assert max_bytes(NEW, doubt=0.5, least_gain=threshold) is not None
    assert max_bytes(KNOWN, doubt=0.5, least_gain=threshold) is None


def test_saving_waits_until_the_allowance_pays_for_a_useful_message() -> None:
    assert max_bytes(NEW, allowed=150) is not None
    assert max_bytes(NEW, allowed=150, save=True) is None


def test_saving_sends_no_more_than_the_knee_about_a_known_scene() -> None:
    size = max_bytes(KNOWN, save=True, least_gain=0.0)
    assert size == int(UTILITY.knee(2000)) < 2000


def test_saving_reserves_bits_where_scenes_change_often() -> None:
    hectic, calm = replace(KNOWN, mean_scene_s=0.2), replace(KNOWN, mean_scene_s=600.0)
    assert max_bytes(hectic, doubt=0.1, save=True, least_gain=0.0) is None
    assert max_bytes(calm, doubt=0.1, save=True, least_gain=0.0) is not None


def test_without_a_limit_the_longest_useful_message_is_allowed() -> None:
    assert max_bytes(NEW, allowed=math.inf, limit=math.inf, save=True) == 3000


# The stage


def value_gate(settings: dict[str, object] | None = None) -> ValueGate:
    utility = UtilityCurve(np.array([100.0, 1000.0]), np.array([0.2, 1.0]))
    accounts = open_accounts(UplinkBudget(16_000, 1.0), {"camera": CameraShare()})
    return ValueGate(load_config(None, settings), lambda taught: utility, accounts, lambda camera, size: 8 * size + 80)


def tracked_frame(bits: int | None, probs=UNSURE, limit: int | None = 16_000) -> Metered:
    metered = replace(make_metered(make_scored(0, probs=probs)), allowance_bits=bits, budget_bits=limit)
    tracker = SceneTracker(SceneConfig(), lambda evidence, units: 4.0)
    return replace(metered, provisional=tracker.track(metered.scored))


async def test_the_limit_is_the_longest_message_that_the_allowance_pays_for() -> None:
    metered = await value_gate().process(tracked_frame(8080))
    assert isinstance(metered, Metered)
    assert metered.max_bytes == 1000


async def test_without_a_budget_the_limit_is_the_longest_useful_message() -> None:
    metered = await value_gate().process(tracked_frame(None, limit=None))
    assert isinstance(metered, Metered)
    assert metered.max_bytes == 1000


@pytest.mark.parametrize(
    ("bits", "probs", "reason"),
    [(8080, (0.996, 0.001, 0.001, 0.001, 0.001), Drop.WORTH), (400, UNSURE, Drop.BUDGET)],
)
async def test_a_message_without_gain_is_not_sent(bits: int, probs, reason: Drop) -> None:
    metered = tracked_frame(bits, probs)
    assert await value_gate().process(metered) == EdgeOnly(metered, reason)


async def test_without_value_gate_any_gain_is_enough() -> None:
    metered = tracked_frame(8080, (0.996, 0.001, 0.001, 0.001, 0.001))
    assert isinstance(await value_gate({"video.value_gate": False}).process(metered), Metered)


async def test_saving_waits_for_a_useful_message() -> None:
    metered = tracked_frame(2000)
    assert isinstance(await value_gate().process(metered), Metered)
    assert await value_gate({"video.saving": True}).process(metered) == EdgeOnly(metered, Drop.WORTH)


async def test_a_frame_goes_on_where_even_an_empty_window_is_too_small() -> None:
    metered = tracked_frame(400, limit=400)
    assert await value_gate().process(metered) is metered
