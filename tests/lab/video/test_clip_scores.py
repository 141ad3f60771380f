"""Verdicts on a labelled clip: segments, states and events."""

from __future__ import annotations

import pytest

from sagelink.lab.video.clip_playback import NO_CLASS, Outcome
from sagelink.lab.video.clip_scores import accuracy_by_state, error_of, score_events, segments_of
from sagelink.lab.video.scored_clips import NOT_SCORED, UNTAUGHT
from tests.lab.clips import clip_of

X = NOT_SCORED


def outcome(class_ids: list[int], prob: float = 0.9) -> Outcome:
    return Outcome(class_ids, [prob] * len(class_ids), [None] * len(class_ids), 0, 0)


def test_frames_without_a_label_are_not_scored() -> None:
    clip, verdicts = clip_of([0, 0, X, X, X, 1, 1, 1]), outcome([0, 1, 0, 1, 1, 1, 1, 0])
    parts = segments_of(clip, verdicts)  # 5 frames a second, parts of 1 s
    assert (parts.frames.tolist(), parts.hits.tolist()) == ([2.0, 3.0], [1.0, 2.0])
    assert accuracy_by_state(clip, verdicts) == {0: 0.5, 1: pytest.approx(2 / 3)}


def test_an_unknown_verdict_and_an_untaught_label_are_never_right() -> None:
    clip = clip_of([0, UNTAUGHT, UNTAUGHT])
    assert accuracy_by_state(clip, outcome([NO_CLASS, NO_CLASS, 0])) == {0: 0.0, UNTAUGHT: 0.0}


def test_the_calibration_error_counts_verdicts_that_name_a_class() -> None:
    clip = clip_of([0, 0, 0, X])
    assert error_of([clip], [outcome([0, 0, NO_CLASS, 1], prob=0.7)]) == pytest.approx(0.3)
    assert error_of([clip], [outcome([NO_CLASS] * 4)]) == 0.0


@pytest.mark.parametrize(
    ("truth", "verdicts", "expected"),
    [
        ([0] * 5 + [1] * 5, [0] * 5 + [1] * 5, (2, 0, 0, 0.4)),
        ([0] * 5 + [1] * 5, [0] * 6 + [1] * 4, (2, 0, 0, 0.5)),  # reported one frame later
        ([0] * 5 + [1] * 5, [0] * 10, (2, 1, 0, 0.4)),
        ([0] * 9, [0] * 3 + [1] * 3 + [0] * 3, (1, 0, 1, 0.4)),
        ([0] * 4 + [X] * 4 + [1] * 4, [0] * 4 + [2] * 4 + [1] * 4, (2, 0, 0, 0.4)),  # 2 meets no labelled state
        ([0] * 5 + [1] * 2 + [0] * 5, [0] * 12, (2, 0, 0, 0.2)),  # a state of two frames is too short for the rule
        ([0] * 6, [NO_CLASS] * 6, (1, 1, 0, None)),  # the rule does not name `unknown`
    ],
)
def test_events_are_compared_with_the_states(
    truth: list[int], verdicts: list[int], expected: tuple[int, int, int, float | None]
) -> None:
    score = score_events(clip_of(truth), outcome(verdicts))
    states, missed, false, delay_s = expected
    assert (score.states, score.missed, score.false) == (states, missed, false)
    assert score.delay_s == (None if delay_s is None else pytest.approx(delay_s, abs=0.11))


def test_doubtful_verdicts_report_no_event() -> None:
    assert score_events(clip_of([0] * 6), outcome([0] * 6, prob=0.5)).missed == 1
