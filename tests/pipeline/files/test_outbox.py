"""The queue on disk: survives, is bounded, and belongs to one process."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files import outbox as module
from sagelink.pipeline.files.outbox import Outbox

DAY_S = 86_400.0


def opened(path: Path, now_s: float = 0.0) -> Outbox:
    return Outbox(path, "events.queue", now_s, DAY_S)


def contents(box: Outbox, receiver: str = "hook") -> list[str]:
    return [item.content for item in box.waiting(receiver, 100)]


def test_a_message_waits_until_it_is_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "state" / "queue.sqlite"
    box = opened(path)
    box.put(["hook"], "a", "first", 100.0)
    box.put(["hook"], "a", "first", 101.0)
    box.close()
    assert os.stat(path).st_mode & 0o777 == 0o600
    box = opened(path)
    (item,) = box.waiting("hook", 10)
    assert (item.key, item.content, item.put_s, item.attempted) == ("a", "first", 100.0, False)
    assert box.find("hook", "a") == item
    box.attempt(item)
    assert box.waiting("hook", 10)[0].attempted
    box.confirm(item)
    assert contents(box) == []
    box.put(["hook"], "a", "first", 103.0)
    delivered = box.find("hook", "a")
    assert delivered is not None
    assert (delivered.number, delivered.delivered) == (item.number, True)
    box.put(["hook"], "a", "second", 104.0)
    box.confirm(item)  # the answer to the earlier one comes late
    assert contents(box) == ["second"]
    box.close()


def test_each_receiver_has_its_own_row(tmp_path: Path) -> None:
    box = opened(tmp_path / "q.sqlite")
    box.put(["hook", "command"], "a", "x", 0.0)
    box.confirm(box.waiting("hook", 1)[0])
    assert (contents(box), contents(box, "command")) == ([], ["x"])
    assert box.find("other", "a") is None
    assert box.known_keys(["a", "b"]) == {"a"}
    assert box.drop_receivers(["hook"]) == 1
    assert contents(box, "command") == []
    box.close()


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from sagelink.pipeline.files.outbox import Outbox\n"
        "box = Outbox(Path(sys.argv[1]), 'events.queue', 0.0, 10.0)\n"
        "for number in range(50): box.put(['hook'], f'e{number}', str(number), number)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "q.sqlite"], check=False)
    box = opened(tmp_path / "q.sqlite", 60.0)
    assert contents(box) == [str(number) for number in range(50)]
    box.close()


def test_rows_leave_after_a_day_and_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 10)
    box = opened(tmp_path / "q.sqlite")
    for number in range(5):
        box.put(["hook"], f"e{number}", str(number), number)
        box.confirm(box.waiting("hook", 1)[0])
    for number in range(5, 15):
        box.put(["hook"], f"e{number}", str(number), number)
    assert "queue_full" not in caplog.text
    for number in range(15, 18):
        box.put(["hook"], f"e{number}", str(number), number)
    assert contents(box) == [str(number) for number in range(8, 18)]  # delivered ones leave first
    assert caplog.text.count("queue_full") == 1
    for item in box.waiting("hook", 3):
        box.confirm(item)
    box.put(["hook"], "e18", "18", 18)
    assert caplog.messages[-1].startswith("event=queue_has_room")
    assert caplog.messages[-1].endswith("discarded_ever=3")
    for number in range(19, 23):
        box.put(["hook"], f"e{number}", str(number), number)
    box.close()
    assert caplog.messages[-1].endswith("discarded_ever=5")
    assert "queue_closed" in caplog.messages[-1]
    box = opened(tmp_path / "q.sqlite", 15.5 + DAY_S)
    assert caplog.messages[-1].endswith("discarded=3 reason='they are too old'")
    assert contents(box) == [str(number) for number in range(16, 23)]
    box.close()
    box = opened(tmp_path / "q.sqlite", 100.0 + DAY_S)
    assert (contents(box), box.find("hook", "e22")) == ([], None)
    assert box.known_keys(["e21", "e22"]) == {"e22"}  # tells what was put last
    box.put(["hook"], "e22", "22", 100.0 + DAY_S)
    assert contents(box) == ["22"]
    box.close()


def test_files_of_others_and_of_another_process_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("mine" * 300)
    with pytest.raises(UsageError, match=r"events\.queue .*notes\.txt"):
        opened(text)
    assert text.read_text() == "mine" * 300
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE t (x)")
    other.commit()
    other.close()
    with pytest.raises(UsageError, match="another program"):
        opened(tmp_path / "other.sqlite")
    first = opened(tmp_path / "q.sqlite")
    first.put(["hook"], "a", "x", 0.0)
    with pytest.raises(UsageError, match="no other process"):
        opened(tmp_path / "q.sqlite")
    first.close()
