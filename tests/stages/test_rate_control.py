"""What a message is worth: the utility curve, the limit of a message, and the stage that applies it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.types import Drop, EdgeOnly, Metered, OperatingPoint
from sagelink.stages.frontier import SHIPPED, RateQualityCurve, read_frontier
from sagelink.stages.rate_control import LEAST_GAIN, RateControl, UtilityCurve, ValueGate
from sagelink.stages.scene_fusion import SceneConfig
from sagelink.stages.scene_tracker import SceneTracker
from sagelink.transport.codecs import Canvas
from tests.fakes import make_metered, make_scored

FRONTIER = SHIPPED / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.yaml"
UNSURE = (0.4, 0.3, 0.1, 0.1, 0.1)


def curve(sizes: list[float], weights: list[float]) -> RateQualityCurve:
    settings = np.arange(len(sizes), dtype=float)
    point = OperatingPoint("avif", 196, 224, 0)
    return RateQualityCurve(point, "quality", settings, np.array(sizes), np.array(weights), np.array(weights))


UTILITY = UtilityCurve.from_curves([curve([100, 400, 1600], [0.1, 0.5, 0.6]), curve([300, 3000], [0.1, 1.0])])


def max_bytes(
    doubt: float = 0.8, held: float = 0.0, allowed: float = 2000.0, price: float = 0.0, least: float = LEAST_GAIN
) -> int | None:
    return RateControl(UTILITY, least).max_bytes(doubt, held, allowed, price)


def test_utility_is_the_upper_envelope_of_all_curves_and_never_falls() -> None:
    assert UTILITY.weight(99) == 0
    assert UTILITY.weight(400) == pytest.approx(0.5)
    assert UTILITY.weight(1e9) == pytest.approx(1.0)
    values = [UTILITY.weight(size) for size in range(100, 4000, 50)]
    assert values == sorted(values)


def test_without_a_price_a_message_may_take_all_that_is_allowed() -> None:
    assert max_bytes() == 2000
    assert max_bytes(allowed=math.inf) == 3000  # the longest useful message


def test_without_doubt_there_is_no_message() -> None:
    assert max_bytes(doubt=0.01) is None


def test_a_message_too_short_to_have_weight_is_not_sent() -> None:
    assert max_bytes(allowed=50) is None
    assert max_bytes(allowed=50, price=1e-9) is None


def test_known_scenes_gain_less_from_a_message() -> None:
    assert max_bytes(doubt=0.5, least=0.15) is not None
    assert max_bytes(doubt=0.5, least=0.15, held=1.0) is None


def test_beside_an_edge_that_is_not_believed_a_message_gains_more() -> None:
    control = RateControl(UTILITY)
    assert control.max_bytes(0.03, 0.5, 2000.0) is None
    assert control.max_bytes(0.06, 0.5, 2000.0, edge_weight=0.0) == 2000
    assert control.max_bytes(0.06, 0.0, 2000.0, edge_weight=0.0) == 2000
    assert control.max_bytes(0.06, 0.0, 2000.0, 1e-9, edge_weight=0.0) is not None


def test_a_price_shortens_messages_and_then_ends_them() -> None:
    sizes = [max_bytes(price=price) for price in (1e-9, 1e-6, 4e-5, 3e-4)]
    assert sizes == [2000, 2000, sizes[2], None]
    assert sizes[2] is not None
    assert 400 < sizes[2] < 700


def test_at_one_price_a_frame_in_doubt_is_sent_and_a_known_one_is_not() -> None:
    assert max_bytes(doubt=0.8, price=7e-5) is not None
    assert max_bytes(doubt=0.3, price=7e-5) is None
    assert max_bytes(doubt=0.8, held=1.0, price=7e-5) is None


def bytes_left_for_a_new_scene(priced: bool) -> float:
    """One scene in doubt for 8 s at 10 frames/s, 64 kbit/s over 10 s; then the size for the first frame of another."""
    utility = UtilityCurve.from_curves(read_frontier(FRONTIER, Canvas(14, 16)))
    control = RateControl(utility)
    budget, held = UplinkBudget(64_000, 10.0), 0.0
    budget.prices_window = priced
    for frame in range(80):
        size = control.max_bytes(0.6, held, budget.allowance(frame / 10) / 8, budget.bit_price(frame / 10))
        held *= math.exp(-0.1 / 8)
        if size is not None:
            assert budget.charge(frame / 10, 8 * size)
            held = max(held, utility.weight(size))
    return control.max_bytes(0.6, 0.0, budget.allowance(8.0) / 8, budget.bit_price(8.0)) or 0


def test_one_scene_cannot_take_the_whole_window_where_bits_have_a_price() -> None:
    assert bytes_left_for_a_new_scene(priced=False) == 0
    assert bytes_left_for_a_new_scene(priced=True) > 3000


# The stage


def value_gate(settings: dict[str, object] | None = None) -> ValueGate:
    utility = UtilityCurve(np.array([100.0, 1000.0]), np.array([0.2, 1.0]))
    return ValueGate(load_config(None, settings), lambda taught: utility, lambda camera, size: 8 * size + 80)


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


@pytest.mark.parametrize(("edge_weight", "busy_s", "passes"), [(1.0, 0.5, True), (0.1, 0.5, False), (0.1, 0.0, True)])
async def test_where_only_the_server_is_believed_a_message_waits_until_the_last_one_has_passed(
    edge_weight: float, busy_s: float, passes: bool
) -> None:
    metered = tracked_frame(8080)
    estimate = replace(metered.provisional.estimate, edge_weight=edge_weight, busy_s=busy_s)
    metered = replace(metered, provisional=replace(metered.provisional, estimate=estimate))
    result = await value_gate().process(metered)
    assert isinstance(result, Metered) if passes else result == EdgeOnly(metered, Drop.WORTH)


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


async def test_a_price_limits_the_message_of_any_frame() -> None:
    dear, cheap = (replace(tracked_frame(8080), bit_price=price) for price in (1e-3, 1e-9))
    assert await value_gate().process(dear) == EdgeOnly(dear, Drop.WORTH)
    alone = replace(cheap, provisional=None)
    assert (await value_gate().process(alone)).max_bytes == 1000
    unpriced = replace(alone, bit_price=0.0)
    assert await value_gate().process(unpriced) is unpriced


async def test_a_frame_goes_on_where_even_an_empty_window_is_too_small() -> None:
    metered = tracked_frame(400, limit=400)
    assert await value_gate().process(metered) is metered
