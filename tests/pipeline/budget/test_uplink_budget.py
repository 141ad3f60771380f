"""The uplink budget: the limit holds in every window, and a sender still gets nearly the full rate."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.errors import SagelinkError, UsageError

RATE, WINDOW = 1000, 2.0
LIMIT = 2000


def ledger_of(budget: UplinkBudget, traffic: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The accepted charges, at the times that the ledger used."""
    return [(budget.now_s, bits) for now_s, bits in traffic if budget.charge(now_s, bits)]


def heaviest_window(accepted: list[tuple[float, int]], window_s: float, starts: list[float]) -> int:
    """Maximum bits in any [s, s + window), exact. The worst start is always the time of a charge."""
    exact = [(Fraction(time_s), bits) for time_s, bits in accepted]
    width = Fraction(window_s)
    begins = [*map(Fraction, starts), *(time_s for time_s, _ in exact)]
    return max((sum(bits for t, bits in exact if s <= t < s + width) for s in begins), default=0)


STEPS = st.one_of(
    st.sampled_from([0.0, 1e-9, 0.5, WINDOW / 2, WINDOW, WINDOW * 1.001, -0.1, -WINDOW, -3 * WINDOW]),
    st.floats(-1.0, 3.0, allow_nan=False),
)


@given(
    began=st.sampled_from([0.0, -5.0, 0.1, 1e6 + 0.3]),
    window_s=st.sampled_from([WINDOW, 1.0, 0.3, 0.1]),
    steps=st.lists(st.tuples(STEPS, st.integers(0, LIMIT + 50)), max_size=60),
    starts=st.lists(st.floats(-10, 100), max_size=10),
)
@example(began=0.0, window_s=WINDOW, steps=[(0.0, LIMIT), (WINDOW, LIMIT)], starts=[0.0])
@example(began=0.0, window_s=WINDOW, steps=[(0.0, LIMIT), (-1.0, 1), (3.0, LIMIT)], starts=[])
def test_no_window_holds_more_than_the_limit(began, window_s, steps, starts):
    budget = UplinkBudget(RATE, window_s)
    traffic, now_s = [], began
    for step, bits in steps:
        now_s += step
        traffic.append((now_s, bits))
    accepted = ledger_of(budget, traffic)
    assert heaviest_window(accepted, window_s, [began + start for start in starts]) <= RATE * window_s
    assert budget.total_bits == sum(bits for _, bits in accepted)
    times = [time_s for time_s, _ in accepted]
    assert times == sorted(times)


@given(steps=st.lists(st.tuples(STEPS, st.integers(1, LIMIT + 50)), min_size=1, max_size=60))
def test_a_charge_is_accepted_up_to_the_allowance(steps):
    budget = UplinkBudget(RATE, WINDOW)
    now_s = 0.0
    for step, bits in steps:
        now_s += step
        allowance = budget.allowance(now_s)
        assert allowance == LIMIT - budget.window_bits(now_s)
        assert not budget.charge(now_s, allowance + 1)
        assert budget.charge(now_s, bits) is (bits <= allowance)
        assert budget.peak_window_bits <= LIMIT


@pytest.mark.parametrize("chunk", [None, 64, 7000])
def test_a_greedy_sender_gets_the_rate(chunk):
    budget = UplinkBudget(64_000, 1.0)
    seconds, after_first = 60, 0
    for step in range(seconds * 1000):
        now_s = step / 1000
        bits = min(budget.allowance(now_s), chunk or 64_000)
        if bits:
            assert budget.charge(now_s, bits)
            after_first += bits if now_s >= 1.0 else 0
    assert after_first == pytest.approx(64_000 * (seconds - 1), rel=0.01)


def test_the_limit_may_be_reached_exactly():
    budget = UplinkBudget(RATE, WINDOW)
    assert budget.charge(5.0, LIMIT - 1)
    assert budget.charge(5.5, 1)
    assert budget.allowance(5.5) == 0
    assert not budget.charge(5.5, 1)
    assert budget.charge(5.5, 0)
    assert budget.peak_window_bits == LIMIT == budget.limit_bits


def test_a_refused_charge_changes_nothing():
    budget = UplinkBudget(RATE, WINDOW)
    assert budget.charge(0.0, 1500)
    assert not budget.charge(0.1, 501)
    assert (budget.total_bits, budget.window_bits(0.1), budget.peak_window_bits) == (1500, 1500, 1500)
    assert budget.charge(0.1, 500)


def test_bits_that_a_token_bucket_would_grant_are_refused():
    """A bucket as deep as one window grants a full burst and then the rate: nearly twice the limit in one window."""
    budget = UplinkBudget(RATE, WINDOW)
    assert budget.charge(10.0, LIMIT)
    bucket_level = 0.0
    for step in range(1, 1000):
        now_s = 10.0 + step * WINDOW / 1000
        bucket_level += LIMIT / 1000
        assert not budget.charge(now_s, int(bucket_level) or 1)
    assert not budget.charge(10.0 + WINDOW - 1e-9, 1)
    assert budget.charge(10.0 + 1.01 * WINDOW, LIMIT)
    assert budget.total_bits == 2 * LIMIT


def test_a_clock_that_runs_backwards_releases_no_bits():
    budget = UplinkBudget(RATE, WINDOW)
    assert budget.charge(100.0, LIMIT)
    assert not budget.charge(3.0, 1)
    assert budget.now_s == 100.0
    assert budget.allowance(100.0 + WINDOW / 2) == 0


def test_a_charge_at_an_earlier_time_counts_from_the_latest_time():
    budget = UplinkBudget(RATE, WINDOW)
    budget.window_bits(100.0)
    assert budget.charge(0.0, LIMIT)
    assert budget.allowance(100.0 + 0.9 * WINDOW) == 0
    assert budget.allowance(100.0 + 1.1 * WINDOW) == LIMIT


def test_unlimited_grants_and_counts_every_charge():
    budget = UplinkBudget(None, 1.0)
    for step in range(5):
        assert budget.allowance(float(step)) is None
        assert budget.charge(float(step), 10**12)
    assert budget.limit_bits is None
    assert budget.total_bits == 5 * 10**12
    assert budget.peak_window_bits in (10**12, 2 * 10**12)  # half-open windows, and the guard


@pytest.mark.parametrize("rate_bps", [64_000, None])
def test_the_ledger_holds_one_window_only(rate_bps):
    budget = UplinkBudget(rate_bps, 1.0)
    longest = 0
    for step in range(20_000):
        assert budget.charge(step / 100, 100)
        longest = max(longest, len(budget._charges))
    assert longest <= 102
    assert budget.window_bits(1e9) == 0
    assert not budget._charges


@pytest.mark.parametrize("bad", [0, -1, 0.0, -0.5, float("nan"), float("inf"), float("-inf")])
def test_an_invalid_rate_or_window_is_named(bad):
    with pytest.raises(UsageError, match=rf"rate is {bad} .*above 0"):
        UplinkBudget(bad, 1.0)
    with pytest.raises(UsageError, match=rf"window is {bad} .*above 0"):
        UplinkBudget(64_000, bad)
    with pytest.raises(UsageError, match="window"):
        UplinkBudget(None, bad)


def test_a_limit_that_overflows_is_a_user_error():
    with pytest.raises(SagelinkError):
        UplinkBudget(1e300, 1e300)


def test_negative_bits_are_a_programming_error():
    budget = UplinkBudget(RATE, WINDOW)
    with pytest.raises(ValueError, match="-1 bits"):
        budget.charge(0.0, -1)
    assert budget.total_bits == 0


@pytest.mark.parametrize(("rate_bps", "window_s", "limit"), [(0.1, 10, 1), (64_000, 0.1, 6400), (1000, 0.0015, 1)])
def test_the_limit_is_an_integer(rate_bps, window_s, limit):
    assert UplinkBudget(rate_bps, window_s).limit_bits == limit


RATES = st.sampled_from([None, 0.7 * RATE, RATE, 3 * RATE, 100])


@given(
    began=st.sampled_from([0.0, 0.1, 1e6 + 0.3]),
    steps=st.lists(st.tuples(STEPS, st.integers(0, 3 * LIMIT), st.one_of(st.just("same"), RATES)), max_size=60),
    starts=st.lists(st.floats(-10, 100), max_size=5),
)
@example(began=0.0, steps=[(0.0, 3 * LIMIT, 3 * RATE), (0.5, 1, 100), (2.01, 200, "same")], starts=[])
def test_with_a_rate_that_changes_no_window_holds_more_than_the_limit_at_its_last_charge(began, steps, starts):
    budget = UplinkBudget(RATE, WINDOW)
    accepted, now_s = [], began
    for step, bits, rate_bps in steps:
        now_s += step
        if rate_bps != "same":
            budget.change_rate(rate_bps)
        allowance = budget.allowance(now_s)
        assert allowance is None or allowance >= 0
        if budget.charge(now_s, bits):
            accepted.append((Fraction(budget.now_s), bits, budget.limit_bits))
    width = Fraction(WINDOW)
    for start in [*(Fraction(began + start) for start in starts), *(time_s for time_s, _, _ in accepted)]:
        inside = [(bits, limit) for time_s, bits, limit in accepted if start <= time_s < start + width]
        # A charge of 0 bits sends nothing, so it does not count as the last charge.
        limits = [limit for bits, limit in inside if bits]
        if limits and limits[-1] is not None:
            assert sum(bits for bits, _ in inside) <= limits[-1]


def test_a_lower_rate_grants_nothing_until_the_window_is_below_it():
    budget = UplinkBudget(RATE, WINDOW)
    assert budget.charge(0.0, 1500)
    budget.change_rate(RATE / 2)
    assert (budget.limit_bits, budget.allowance(1.0), budget.window_bits(1.0)) == (1000, 0, 1500)
    assert not budget.charge(1.0, 1)
    assert budget.charge(1.01 * WINDOW, 1000)


def test_a_higher_rate_counts_at_once():
    budget = UplinkBudget(RATE, WINDOW)
    assert budget.charge(0.0, LIMIT)
    budget.change_rate(2 * RATE)
    assert budget.allowance(0.0) == LIMIT
    budget.change_rate(None)
    assert budget.allowance(0.0) is None
    assert budget.rate_bps is None


def test_an_invalid_rate_changes_nothing():
    budget = UplinkBudget(RATE, WINDOW)
    for rate_bps in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError):
            budget.change_rate(rate_bps)
    assert (budget.rate_bps, budget.limit_bits) == (RATE, LIMIT)
