"""The queue of pictures: what has begun goes on after a restart, each event has one, and the oldest leave whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files import picture_queue as module
from sagelink.pipeline.files.picture_queue import PictureQueue, WaitingPicture


def test_a_picture_that_has_begun_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    queue = PictureQueue(path)
    assert queue.next() is None
    queue.put("a", "gate", b"first", 0.0)
    queue.put("b", "door", b"second", 0.0)
    queue.note_sent("b", 3)
    queue.close()
    queue = PictureQueue(path)
    assert queue.next() == WaitingPicture("b", "door", b"second", 3)
    queue.note_sent("b", 6)
    assert queue.next() == WaitingPicture("a", "gate", b"first", 0)
    queue.note_sent("a", 5)
    assert queue.next() is None
    queue.close()


def test_an_event_has_one_picture_and_none_once_it_is_withdrawn(tmp_path: Path) -> None:
    queue = PictureQueue(tmp_path / "queue.sqlite")
    queue.put("a", "gate", b"first", 0.0)
    queue.put("a", "gate", b"again", 0.0)
    found = queue.next()
    assert found is not None
    assert found.data == b"first"
    queue.withdraw("a")
    assert (queue.next(), queue.knows("a"), queue.knows("b")) == (None, True, False)
    queue.put("a", "gate", b"again", 0.0)
    assert queue.next() is None
    queue.close()


def test_old_pictures_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 3)
    monkeypatch.setattr(module, "_MAX_KNOWN", 5)
    queue = PictureQueue(tmp_path / "queue.sqlite")
    for number in range(6):
        queue.put(f"e{number}", "gate", b"x", float(number))
    waiting = []
    while (picture := queue.next()) is not None:
        waiting.append(picture.event)
        queue.note_sent(picture.event, 1)
    assert waiting == ["e3", "e4", "e5"]
    assert [queue.knows(f"e{number}") for number in range(3)] == [False, True, True]
    queue.put("new", "gate", b"x", 10.0)
    queue.put("newer", "gate", b"x", 10.0 + 8 * 86_400)
    picture = queue.next()
    assert picture is not None
    assert picture.event == "newer"
    queue.close()


def test_a_file_of_others_or_in_use_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    other.write_bytes(b"text" * 500)
    with pytest.raises(UsageError, match="accepted"):
        PictureQueue(other)
    assert other.read_bytes() == b"text" * 500
    queue = PictureQueue(tmp_path / "queue.sqlite")
    queue.put("a", "gate", b"x", 0.0)
    with pytest.raises(UsageError, match="no other process uses"):
        PictureQueue(tmp_path / "queue.sqlite")
    queue.close()
