"""Scores the verdicts on a clip against its labels: right answers by segment, states, and events.

In: a scored clip and an `Outcome`. Out: numbers. A state is a run of frames with the same label; what lies between two
runs is not scored. Events come from the default rule of `sagelink.stages.event_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.probabilities import calibration_error
from sagelink.lab.video.clip_playback import NO_CLASS, Outcome
from sagelink.lab.video.scored_clips import NOT_SCORED, ScoredClip
from sagelink.pipeline.answers import UNKNOWN
from sagelink.pipeline.config.events import EventRule
from sagelink.stages.event_rules import CameraEvents, Observation

_RULE = EventRule(name="label")  # the default rule
_FEWEST = 3  # frames of a state that the rule can report


@dataclass(frozen=True, slots=True)
class EventScore:
    """Events of the default rule against the labelled states."""

    states: int  # that last long enough for the rule
    missed: int  # of these, without an event of their label
    false: int  # events that meet labelled states, but none of their label
    delay_s: float | None  # mean time from the start of a state to its event; None without events


@dataclass(frozen=True, slots=True)
class Segments:
    """Frames and right verdicts by part of a clip: the parts count as independent in confidence intervals."""

    frames: NDArray[np.float64]  # (S,) scored frames
    hits: NDArray[np.float64]  # (S,)


@dataclass(frozen=True, slots=True)
class _StateRun:
    truth: int
    start_s: float
    end_s: float
    frames: int


def hits_of(clip: ScoredClip, outcome: Outcome) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Per frame: the verdict is right; the frame is scored."""
    truth = np.array([frame.truth for frame in clip.frames], int)
    return np.array(outcome.class_ids, int) == truth, truth != NOT_SCORED


def segments_of(clip: ScoredClip, outcome: Outcome) -> Segments:
    """The parts of `clip.segment_s`; those without a scored frame hold zeros."""
    hits, scored = hits_of(clip, outcome)
    times = np.array([frame.stream_s for frame in clip.frames])
    parts = np.zeros(len(times), int) if math.isinf(clip.segment_s) else (times / clip.segment_s).astype(int)
    frames, right = (np.bincount(parts, chosen).astype(np.float64) for chosen in (scored, hits & scored))
    return Segments(frames, right)


def accuracy_by_state(clip: ScoredClip, outcome: Outcome) -> dict[int, float]:
    """Share of right verdicts by true class, of those that occur in the clip."""
    hits, scored = hits_of(clip, outcome)
    truth = np.array([frame.truth for frame in clip.frames], int)
    return {int(c): float(hits[truth == c].mean()) for c in np.unique(truth[scored])}


def error_of(clips: Sequence[ScoredClip], outcomes: Sequence[Outcome]) -> float:
    """Expected calibration error of the scored verdicts that name a class; 0 without any."""
    probs, right = [], []
    for clip, outcome in zip(clips, outcomes, strict=True):
        hits, scored = hits_of(clip, outcome)
        named = scored & (np.array(outcome.class_ids) != NO_CLASS)
        probs.append(np.array(outcome.probs)[named])
        right.append(hits[named])
    return calibration_error(np.concatenate(probs), np.concatenate(right)) if any(map(len, probs)) else 0.0


def score_events(clip: ScoredClip, outcome: Outcome) -> EventScore:
    """A state is found if an event of its label meets it; an event that meets only unlabelled times is not scored."""
    states = [state for state in _states(clip) if state.frames >= _FEWEST]
    found = [*_events(clip, outcome)]
    delays, missed, false = [], 0, 0
    for state in states:
        own = [each for each in found if each.label == str(state.truth) and _meet(each, state)]
        if own:
            delays.append(max(0.0, min(each.reported_s for each in own) - state.start_s))
        else:
            missed += 1
    for event in found:
        met = [state for state in _states(clip) if _meet(event, state)]
        false += bool(met) and all(event.label != str(state.truth) for state in met)
    return EventScore(len(states), missed, false, float(np.mean(delays)) if delays else None)


@dataclass(frozen=True, slots=True)
class _Reported:
    label: str
    start_s: float
    reported_s: float
    end_s: float


def _meet(event: _Reported, state: _StateRun) -> bool:
    return event.reported_s <= state.end_s and event.end_s > state.start_s


def _states(clip: ScoredClip) -> list[_StateRun]:
    """Runs of frames with the same truth; frames that are not scored neither end a run nor belong to it."""
    states: list[_StateRun] = []
    for frame in clip.frames:
        if frame.truth == NOT_SCORED:
            continue
        if states and states[-1].truth == frame.truth:
            last = states.pop()
            states.append(_StateRun(last.truth, last.start_s, frame.stream_s, last.frames + 1))
        else:
            states.append(_StateRun(frame.truth, frame.stream_s, frame.stream_s, 1))
    return states


def _events(clip: ScoredClip, outcome: Outcome) -> Iterator[_Reported]:
    """The events of the verdicts, by the time at which they are reported."""
    rules = CameraEvents([_RULE])
    reported: dict[str, float] = {}  # by event id
    last_s = 0.0
    for seq, (frame, class_id, prob) in enumerate(zip(clip.frames, outcome.class_ids, outcome.probs, strict=True)):
        last_s = frame.stream_s
        label = UNKNOWN if class_id == NO_CLASS else str(class_id)
        seen = Observation("lab", seq, last_s, last_s, label, prob, "edge", 0)
        for step in rules.final(seen):
            if step.action == "open":
                reported[step.event.id] = last_s
            elif step.action == "close":
                end_s = last_s if step.event.end_s is None else step.event.end_s
                yield _Reported(step.event.label, step.event.start_s, reported[step.event.id], end_s)
    for step in rules.finish():
        yield _Reported(step.event.label, step.event.start_s, reported[step.event.id], last_s + 1e-3)
