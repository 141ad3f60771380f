"""The promise of the ledger: no window and no period over its limit, whatever happens to processes and clocks."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.budget.calendar_periods import Calendar
from sagelink.pipeline.budget.quota import Quota
from tests.pipeline.ledger_edges import Edge, Sent, SimulatedClock, fullest_window

DAY = Calendar("day", timezone="Europe/Berlin")
_limits = st.fixed_dictionaries(
    {
        "rate_bps": st.sampled_from([None, 1000.0, 64_000.0]),
        "window_s": st.sampled_from([1.0, 10.0, 60.0]),
        "day_bits": st.sampled_from([50, 20_000, 1_000_000]),
        "hours_bits": st.sampled_from([5_000, 400_000]),
        "every_s": st.sampled_from([30.0, 3600.0]),
    }
)
_edge = st.integers(0, 1)
_bits = st.integers(1, 9_000)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), _edge, _bits),
        st.tuples(st.just("held"), _edge, _bits, st.sampled_from([0.0, 0.3, 2.0])),
        st.tuples(st.just("greedy"), _edge),
        st.tuples(st.just("greedy"), _edge),
        st.tuples(st.just("transact"), _edge),
        st.tuples(st.just("stop"), _edge),
        st.tuples(
            st.just("kill"), _edge, st.integers(1, 400), st.sampled_from(["send", "greedy", "transact", "start"])
        ),
        st.tuples(st.just("kill"), _edge, st.just(1), st.just("transact")),
        st.tuples(st.just("pass"), st.sampled_from([0.001, 0.3, 0.5, 1.001, 9.0, 20.0])),
        st.tuples(st.just("pass"), st.sampled_from([0.001, 0.3, 0.5, 1.001, 9.0, 61.0, 4000.0, 90_000.0])),
        st.tuples(st.just("wall"), st.sampled_from([-90_000.0, -3600.0, -1.0, 1.0, 3600.0, 90_000.0, 3e6])),
        st.tuples(st.just("reboot"), st.sampled_from([0.0, 30.0, 40_000.0])),
    ),
    min_size=8,
    max_size=40,
)


def act(edges: Sequence[Edge], clock: SimulatedClock, step: Sequence[object]) -> object:
    match step:
        case ("pass", float(seconds)):
            clock.true_s += seconds
        case ("wall", float(seconds)):
            clock.wall_offset_s += seconds
        case ("reboot", float(off_s)):
            for edge in edges:
                edge.kill()
            clock.reboot(off_s)
        case ("kill", int(number), int(lines), str(action)):
            edge = edges[number]
            if action != "start":
                edge.start()
            if lines == 1:
                return edge.kill()
            actions = {"send": lambda: edge.send(3000), "greedy": edge.greedy, "transact": edge.transact}
            edge.killed_within(lines, actions.get(action, edge.start))
        case ("held", int(number), int(bits), float(seconds)):
            edges[number].start()
            edges[number].send(bits, seconds)
        case (str(action), int(number), *arguments):
            edges[number].start()
            getattr(edges[number], action)(*arguments)


def check(sent: Sequence[Sent], limits: dict[str, float], quotas: Sequence[Quota]) -> None:
    if limits["rate_bps"] is not None:
        assert fullest_window(sent, limits["window_s"]) <= limits["rate_bps"] * limits["window_s"]
    for quota in quotas:
        if quota.calendar is None:
            assert fullest_window(sent, quota.every_s) <= quota.limit_bits
        else:
            periods = Counter[float]()
            for each in sent:
                periods[quota.calendar.period(each.wall_s)[0]] += each.bits
            assert max(periods.values(), default=0) <= quota.limit_bits


@given(limits=_limits, steps=_steps)
def test_no_window_and_no_period_is_over_its_limit(limits, steps):
    quotas = [
        Quota("day", limits["day_bits"], calendar=DAY),
        Quota("hours", limits["hours_bits"], every_s=limits["every_s"]),
    ]
    clock = SimulatedClock()
    with tempfile.TemporaryDirectory() as folder:
        edges = [Edge(Path(folder) / "ledger", clock, quotas, limits["rate_bps"], limits["window_s"]) for _ in range(2)]
        edges[0].start()
        clock.true_s += 11  # until a new ledger opens
        for step in steps:
            act(edges, clock, step)
        for edge in edges:
            edge.kill()
    check(edges[0].sent + edges[1].sent, limits, quotas)


@pytest.mark.parametrize(
    ("processes", "rate_bps", "window_s", "quotas", "step_s"),
    [
        (1, 64_000.0, 1.0, [], 0.143),  # seven steps are one window and its guard time
        (2, 64_000.0, 60.0, [], 0.25),
        (2, 64_000.0, 1.0, [Quota("minutes", 6_000_000, every_s=300.0)], 0.25),
        (1, None, 1.0, [Quota("minutes", 6_000_000, every_s=300.0)], 1.0),
        (2, None, 1.0, [Quota("day", 6_000_000, calendar=DAY)], 1.0),
    ],
)
def test_greedy_senders_use_nearly_all(tmp_path, processes, rate_bps, window_s, quotas, step_s):
    clock = SimulatedClock()
    edges = [Edge(tmp_path / "ledger", clock, quotas, rate_bps, window_s) for _ in range(processes)]
    for edge in edges:
        edge.start()
    clock.true_s += 300  # until the shares are settled, and nothing more is in any window
    for _ in range(3):
        for edge in edges:
            edge.budget.claim(edge.now_s)
            edge.transact()
        clock.true_s += 61.0
    began_s = clock.true_s
    while clock.true_s < began_s + 1500:
        for edge in edges:
            edge.greedy()
        if processes > 1 and clock.true_s % 1 < step_s:
            for edge in edges:
                edge.transact()
        clock.true_s += step_s
    sent = [each for edge in edges for each in edge.sent]
    limits = {"rate_bps": rate_bps, "window_s": window_s}
    check(sent, limits, quotas)
    possible = quotas[0].limit_bits * (1 if quotas[0].calendar else 5) if quotas else rate_bps * 1500
    assert sum(each.bits for each in sent) >= 0.98 * possible
