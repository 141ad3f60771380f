"""Doubt about a state must last, but not longer than a frame where frames are rare."""

from __future__ import annotations

import pytest

from sagelink.stages.lasting_doubt import LastingDoubt


@pytest.mark.parametrize(("fps", "waits"), [(50, 10), (29.85, 6), (12.5, 2), (9.9, 2), (2.4, 0), (0.5, 0)])
def test_the_first_frames_of_a_doubt_wait(fps: float, waits: int) -> None:
    doubt = LastingDoubt()
    doubts = [False] * 5 + [True] * 20 + [False] + [True] * 20
    sent = [doubt.lasts(each, seq / fps) for seq, each in enumerate(doubts)]
    for first in (5, 26):
        assert sent[first : first + 20] == [False] * waits + [True] * (20 - waits)
    assert not any(sent[:5])
    assert not sent[25]


def test_the_first_frame_of_a_camera_does_not_wait() -> None:
    assert LastingDoubt().lasts(True, 7.0)
