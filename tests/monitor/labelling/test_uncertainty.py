"""The order of frames to label."""

from __future__ import annotations

import numpy as np

from sagelink.monitor.labelling.folder import FrameKey
from sagelink.monitor.labelling.uncertainty import Candidate, rank, unit_token


def candidate(seq: int, angle: float, margin: float | None = 0.9, **values: object) -> Candidate:
    token = np.array([np.cos(angle), np.sin(angle)], np.float32)
    known: dict[str, object] = {"label": "open", "prob": 0.9, "second": "shut", "disagreement": False, "unknown": False}
    return Candidate(FrameKey("gate", seq), token, margin=margin, **(known | values))  # type: ignore[arg-type]


def order(candidates: list[Candidate], known: list[Candidate] | None = None) -> list[int]:
    tokens = [each.token for each in known or [] if each.token is not None]
    return [each.candidate.frame.seq for each in rank(candidates, tokens, 10)]


def test_close_answers_disagreement_and_unknown_come_first():
    sure = [candidate(0, 0.0), candidate(1, 0.01, margin=0.05), candidate(2, 0.02, disagreement=True)]
    assert order(sure, [candidate(9, 0.0)]) == [1, 2, 0]
    assert order([*sure, candidate(3, 0.03, unknown=True)], [candidate(9, 0.0)])[0] == 3


def test_a_frame_like_a_labelled_one_or_like_one_before_it_waits():
    twins = [candidate(0, 0.0, margin=0.50), candidate(1, 0.001, margin=0.51), candidate(2, 2.0, margin=0.9)]
    assert order(twins) == [0, 2, 1]
    assert order(twins, [candidate(9, 0.0)])[0] == 2


def test_reasons_are_given_in_words():
    first = rank([candidate(0, 0.0, margin=0.1, disagreement=True)], [], 1)[0]
    assert first.reasons == ("open or shut?", "edge and server disagree", "unlike the others")
    assert rank([candidate(0, 0.0, unknown=True)], [unit_token(np.array([2.0, 0.0], np.float32))], 1)[0].reasons == (
        "none of the classes",
    )


def test_without_the_users_classes_only_novelty_counts():
    frames = [candidate(0, 0.0, margin=None), candidate(1, 0.0, margin=None), candidate(2, 1.5, margin=None)]
    assert order(frames) == [0, 2, 1]
    assert rank([], [], 5) == []
