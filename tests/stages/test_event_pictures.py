"""Pictures of events: the right frame, and no more than is to be kept."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from sagelink.pipeline.config.events import EventRule
from sagelink.pipeline.quantities import RetentionLimit, parse_retention
from sagelink.pipeline.types import Drop, EdgeOnly, FrameEvent, Verdict
from sagelink.stages.fuse import Fuse
from sagelink.stages.sinks.event_pictures import EventPictures, picture_path
from sagelink.stages.sinks.events import EventSink
from tests.fakes import SIDE, make_frame, make_scored

FUSE = Fuse(False, {0.0: 0.0, 1.0: 1.0}, SIDE**2)
LABELS = ("empty", "lorry", "car", "bike", "bus")
RULE = EventRule(name="r", labels=("lorry",), after=2, until=2)
DAY_S = 86_400.0


def verdict(seq: int, prob: float, label: int = 1, pending: bool = False) -> Verdict:
    """A verdict on a frame whose grey level is its number."""
    pixels = np.full((40, 60, 3), 10 * seq, np.uint8)
    rest = (1 - prob) / 4
    probs = [prob if number == label else rest for number in range(5)]
    scored = replace(make_scored(seq, float(seq), probs), frame=make_frame(seq, float(seq), pixels))
    return replace(FUSE.decide(EdgeOnly(scored, Drop.GATE)), pending=pending)


def run(folder: Path, *verdicts: Verdict, keep: str = "30d, 2GB", now_s: float = 1e9) -> list[str]:
    """Writes the verdicts; returns the pictures' names."""
    pictures = EventPictures(folder, LABELS, parse_retention(keep), clock_s=lambda: now_s)
    events = EventSink([RULE], LABELS, True, {}, [pictures])
    for each in verdicts:
        for sink in (pictures, events):
            (sink.show_pending if each.pending else sink.write)(each)
    return sorted(path.name for path in folder.iterdir())


def grey(path: Path) -> int:
    return round(float(cv2.imread(str(path)).mean()))


def test_the_best_frame_of_the_event_is_saved(tmp_path: Path) -> None:
    row = [verdict(seq, prob) for seq, prob in ((2, 0.7), (3, 0.8), (4, 0.75))]
    (name,) = run(tmp_path, verdict(1, 0.95, label=0), *row)
    assert grey(tmp_path / name) == 30


def test_a_better_frame_takes_its_place(tmp_path: Path) -> None:
    (name,) = run(tmp_path, verdict(2, 0.62), verdict(3, 0.61), verdict(4, 0.9))
    assert grey(tmp_path / name) == 40


def test_the_picture_of_a_withdrawn_event_is_deleted(tmp_path: Path) -> None:
    early = [verdict(seq, 0.9, pending=True) for seq in (1, 2)]
    assert len(run(tmp_path / "early", *early)) == 1
    assert run(tmp_path / "withdrawn", *early, *(verdict(seq, 0.9, label=0) for seq in (1, 2))) == []


def test_old_pictures_leave_and_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"x" * 1000)
    for number, age_d in enumerate((40, 31, 2)):
        path = picture_path(tmp_path, f"gate-r-19a{number}-{number}-0123456{number}")
        assert path is not None
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1e9 - age_d * DAY_S,) * 2)
    left = run(tmp_path)
    assert len(left) == 2
    assert "mine.jpg" in left


def test_the_oldest_leave_beyond_the_size_and_the_newest_stays(tmp_path: Path) -> None:
    for number in range(5):
        path = picture_path(tmp_path, f"gate-r-19a{number}-{number}-0123456{number}")
        assert path is not None
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1e9 + number,) * 2)
    assert [name[7:13] for name in run(tmp_path, keep="2.5kB")] == ["19a3-3", "19a4-4"]
    assert len(run(tmp_path, keep="10B")) == 1


def test_an_id_that_no_event_has_is_no_path(tmp_path: Path) -> None:
    assert picture_path(tmp_path, "../../etc/passwd") is None
    assert picture_path(tmp_path, "../gate-r-1-2-01234567") is None
    assert RetentionLimit(DAY_S) == parse_retention("1d")


def test_events_of_others_get_only_their_own_frames_and_private_ones_no_picture(tmp_path: Path) -> None:
    def of_event(seq: int, prob: float, event_id: str, private: bool = False) -> Verdict:
        made = verdict(seq, prob)
        return replace(made, frame=replace(made.frame, event=FrameEvent(event_id, "yard", "dog", private=private)))

    assert run(tmp_path / "p", of_event(2, 0.7, "other"), of_event(3, 0.9, "private", True)) == run(
        tmp_path / "alone", of_event(2, 0.7, "other")
    )
    first, _ = run(tmp_path / "two", of_event(2, 0.7, "other"), of_event(3, 0.9, "another"))
    assert grey(tmp_path / "two" / first) == 20
