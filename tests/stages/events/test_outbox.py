"""The queue of sub-labels on disk: survives, is bounded, and belongs to one process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sagelink.pipeline.errors import UsageError
from sagelink.stages.events import outbox as module
from sagelink.stages.events.outbox import Outbox


def test_a_sub_label_waits_until_it_is_confirmed(tmp_path):
    path = tmp_path / "state" / "queue.sqlite"
    box = Outbox(path, 100.0)
    assert box.put("a", "rex", 0.9, 100.0).changed
    assert not box.put("a", "rex", 0.901, 101.0).changed
    box.close()
    assert os.stat(path).st_mode & 0o777 == 0o600
    box = Outbox(path, 102.0)
    (item,) = box.waiting(10)
    assert (item.event, item.label, item.score, item.attempted) == ("a", "rex", 0.9, False)
    box.attempt(item)
    assert box.waiting(10)[0].attempted
    box.confirm(item)
    assert box.waiting(10) == []
    stored = box.put("a", "rex", 0.9, 103.0)
    assert (stored.changed, stored.written) == (False, True)
    assert box.put("a", "bella", 0.8, 104.0).changed  # the verdict is revised
    assert [waiting.label for waiting in box.waiting(10)] == ["bella"]
    box.confirm(item)  # the answer to the earlier one comes late
    assert box.count_waiting() == 1
    assert box.written("a") == "bella"
    box.close()


def test_a_killed_process_loses_nothing(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from sagelink.stages.events.outbox import Outbox\n"
        "box = Outbox(Path(sys.argv[1]), 0.0)\n"
        "for number in range(50): box.put(f'e{number}', 'rex', 0.9, number)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "q.sqlite"], check=False)
    box = Outbox(tmp_path / "q.sqlite", 60.0)
    assert [item.event for item in box.waiting(100)] == [f"e{number}" for number in range(50)]
    box.close()


def test_rows_leave_after_a_day_and_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_ROWS", 10)
    box = Outbox(tmp_path / "q.sqlite", 0.0)
    for number in range(5):
        box.put(f"e{number}", "rex", 0.9, number)
        box.confirm(box.waiting(1)[0])
    for number in range(5, 18):
        box.put(f"e{number}", "rex", 0.9, number)
    assert [item.event for item in box.waiting(100)] == [f"e{number}" for number in range(8, 18)]  # written go first
    box.close()
    box = Outbox(tmp_path / "q.sqlite", 12.5 + module.KEEP_S)
    assert [item.event for item in box.waiting(100)] == [f"e{number}" for number in range(13, 18)]
    box.close()


def test_files_of_others_and_of_another_process_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("mine" * 300)
    with pytest.raises(UsageError, match="notes.txt"):
        Outbox(text, 0.0)
    assert text.read_text() == "mine" * 300
    import sqlite3

    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE t (x)")
    other.commit()
    other.close()
    with pytest.raises(UsageError, match="another program"):
        Outbox(tmp_path / "other.sqlite", 0.0)
    first = Outbox(tmp_path / "q.sqlite", 0.0)
    first.put("a", "rex", 0.9, 0.0)
    with pytest.raises(UsageError, match="no other process"):
        Outbox(tmp_path / "q.sqlite", 0.0)
    first.close()
