"""Which pictures of events are queued, when, and how large."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagelink.pipeline.files.picture_queue import PictureQueue
from sagelink.pipeline.quantities import parse_retention
from sagelink.pipeline.types import FrameEvent, Verdict
from sagelink.stages.sinks.event_pictures import EventPictures
from sagelink.stages.sinks.event_uploads import EventUploads, small_avif
from sagelink.stages.sinks.events import EventSink
from tests.stages.test_event_pictures import LABELS, RULE, verdict


class Uploads:
    """The sinks of a run that sends pictures of events."""

    def __init__(self, folder: Path) -> None:
        self.queue = PictureQueue(folder / "queue.sqlite")
        self.news = 0
        pictures = EventPictures(folder / "pictures", LABELS, parse_retention("1d"))
        self.uploads = EventUploads(folder / "pictures", self.queue, 3000, self.note)
        self.sinks = (pictures, self.uploads, EventSink([RULE], LABELS, True, {}, [pictures, self.uploads]))

    def note(self) -> None:
        self.news += 1

    def write(self, *verdicts: Verdict) -> None:
        for each in verdicts:
            for sink in self.sinks:
                sink.write(each)


def at(second: int, label: int = 1) -> Verdict:
    each = verdict(0, 0.9, label)
    return replace(each, frame=replace(each.frame, seq=second, stream_s=float(second)))


@pytest.fixture
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    uploads = Uploads(tmp_path)
    yield uploads
    uploads.queue.close()


def test_the_picture_of_an_event_is_queued_at_its_end(uploads: Uploads) -> None:
    uploads.write(*(verdict(seq, 0.9) for seq in range(1, 4)))
    assert uploads.queue.next() is None
    uploads.write(*(verdict(seq, 0.9, label=0) for seq in range(4, 6)))
    picture = uploads.queue.next()
    assert picture is not None
    assert (picture.camera, uploads.news) == ("camera", 1)
    with Image.open(io.BytesIO(picture.data)) as image:
        assert (image.format, image.size) == ("AVIF", (60, 40))


def test_the_picture_of_a_long_event_is_queued_before_its_end_and_once(uploads: Uploads) -> None:
    uploads.write(*(at(seq) for seq in (1, 2, 10, 33)))
    picture = uploads.queue.next()
    assert picture is not None
    uploads.queue.note_sent(picture.event, len(picture.data))
    uploads.write(at(34), at(35, label=0), at(36, label=0))
    assert (uploads.queue.next(), uploads.news) == (None, 1)


def test_pictures_of_private_frames_are_not_queued(uploads: Uploads, tmp_path: Path) -> None:
    event = FrameEvent("17.1-a", "gate", "lorry", private=True)
    for seq in (1, 2, 3):
        each = verdict(seq, 0.9)
        uploads.write(replace(each, frame=replace(each.frame, event=event)))
    uploads.write(*(verdict(seq, 0.9, label=0) for seq in (4, 5)))
    for sink in uploads.sinks:
        sink.close()
    assert not (tmp_path / "pictures").exists()
    assert uploads.queue.next() is None


def test_pictures_of_a_killed_run_are_queued_by_the_next(uploads: Uploads, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        path = tmp_path / "pictures" / f"gate-r-19a{number}-{number}-0123456{number}.jpg"
        Image.new("RGB", (60, 40)).save(path)
    ids = [f"gate-r-19a{number}-{number}-0123456{number}" for number in range(4)]
    records = [{"id": each, "camera": "gate", "action": "close", "wall_s": 1e9, "source_event": None} for each in ids]
    uploads.queue.put(ids[0], "gate", b"x", 1e9)
    records[2]["source_event"] = "of another system"
    uploads.uploads.recover(records, 1e9 + 60)
    assert [uploads.queue.knows(each) for each in ids] == [True, True, False, False]
    uploads.uploads.recover([records[1] | {"id": ids[2], "source_event": None}], 1e9 + 2 * 86_400)
    assert not uploads.queue.knows(ids[2])


def test_a_picture_becomes_as_small_as_it_must():
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    smooth = Image.fromarray(noise).resize((40, 22)).resize((640, 360))
    assert Image.open(io.BytesIO(small_avif(smooth, 20_000))).size == (640, 360)
    small = small_avif(Image.fromarray(noise), 4000)
    assert len(small) <= 4000
    assert Image.open(io.BytesIO(small)).size[0] < 640
