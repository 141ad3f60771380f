"""Stream time from regular and broken timestamps, and sampling by time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.stages.timestamps import Sampler, Timeline


def times_of(pts: list[float | None], frame_s: float = 0.1) -> list[float]:
    timeline = Timeline(frame_s)
    return [round(timeline.place(pts_s), 6) for pts_s in pts]


@pytest.mark.parametrize(
    ("pts", "times"),
    [
        ([0, 0.1, 0.2], [0, 0.1, 0.2]),
        ([86400.5, 86400.6, 86400.9], [0, 0.1, 0.4]),  # starts anywhere; uneven steps are kept
        ([0, 0.1, None, 0.3], [0, 0.1, 0.2, 0.3]),  # missing: one frame on
        ([None, None, None], [0, 0.1, 0.2]),
        ([0, 0.1, 0.05, 0.2], [0, 0.1, 0.1, 0.2]),  # jitter: time stands still
        ([95443.5, 95443.6, 0.05, 0.15], [0, 0.1, 0.2, 0.3]),  # a 33-bit counter at 90 kHz wraps
        ([5, 5.1, 5.2, 0, 0.1], [0, 0.1, 0.2, 0.3, 0.4]),  # two files joined
        ([0, 0.1, 99999, 99999.1], [0, 0.1, 0.2, 0.3]),  # a step ahead of a day is not a pause
        ([0, 60, 120], [0, 60, 120]),  # a time-lapse is valid
        ([-3, -2.9], [0, 0.1]),
    ],
)
def test_time_from_timestamps(pts: list[float | None], times: list[float]) -> None:
    assert times_of(pts) == times


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=40))
def test_time_never_runs_backwards(pts: list[float | None]) -> None:
    times = times_of(pts)
    assert times == sorted(times)
    assert times[:1] in ([], [0])


@pytest.mark.parametrize(
    ("rate", "fps", "taken"), [(30, 2, 20), (30, 30, 300), (25, 10, 100), (10, 30, 100), (30, 7, 70)]
)
def test_sampling_by_time(rate: float, fps: float, taken: int) -> None:
    sampler = Sampler(fps)
    times = [index / rate for index in range(int(10 * rate))]
    chosen = [time_s for time_s in times if sampler.wants(time_s)]
    assert len(chosen) == taken
    gaps = [later - earlier for earlier, later in itertools.pairwise(chosen)]
    assert max(gaps) - min(gaps) <= 1 / rate + 1e-9


def test_no_burst_after_a_pause() -> None:
    sampler = Sampler(2)
    assert [time_s for time_s in (0, 0.1, 10, 10.1, 10.2, 10.5, 10.6) if sampler.wants(time_s)] == [0, 10, 10.5]


def test_without_a_rate_every_frame_is_taken() -> None:
    sampler = Sampler(None)
    assert all(sampler.wants(time_s) for time_s in (0.0, 0.0, 0.01))
