"""Teaching from the labelling page: a process of its own, the comparison, the way back, and what goes wrong."""

from __future__ import annotations

import io
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sagelink.app.edge import head_teacher
from sagelink.app.edge.head_teacher import HeadInUse, LabelledHeadTeacher
from sagelink.models.heads.head import Head, HeadCard
from sagelink.monitor.labelling.folder import FrameKey, LabelFolder
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from tests.app.commands.test_teach import CLASSES, drawing
from tests.patience import PATIENCE_S


class FakeHeads:
    """Heads of a run without models."""

    def __init__(self) -> None:
        self.heads: list[Head | None] = [None]

    def head(self) -> Head | None:
        return self.heads[-1]

    def swap(self, head: Head) -> None:
        self.heads.append(head)

    def restore(self) -> None:
        if len(self.heads) < 2:
            raise UsageError("there is no earlier head to go back to")
        self.heads.pop()

    def can_restore(self) -> bool:
        return len(self.heads) > 1


@pytest.fixture(autouse=True)
def _quick_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process keeps its priority, and teaches for one message size: else it takes minutes on a busy machine."""
    changes = (
        "import os; from sagelink.app.edge import teach_process as process; os.nice = int; process._SIZES = (600, None)"
    )
    real = subprocess.Popen

    def started(command: list[str], **options: Any) -> subprocess.Popen[str]:
        assert command[1:] == ["-m", "sagelink.app.edge.teach_process"]
        return real([command[0], "-c", f"{changes}; process.main()"], **options)

    monkeypatch.setattr(head_teacher.subprocess, "Popen", started)


@pytest.fixture
def folder(tmp_path) -> Iterator[LabelFolder]:
    folder = LabelFolder(tmp_path / "labels", "s")
    yield folder
    folder.close()


def teacher_of(folder: LabelFolder, heads: FakeHeads, **settings: object) -> LabelledHeadTeacher:
    config = load_config(None, {"models": "demo", "threads": 1, **settings})
    in_use = HeadInUse(heads.head, heads.swap, heads.restore, heads.can_restore)
    return LabelledHeadTeacher(config, folder, in_use, time.time_ns())


def label(folder: LabelFolder, first: int, count: int) -> None:
    """`count` drawings of each class; each is a group."""
    for number, kind in enumerate(CLASSES):
        for index in range(first, first + count):
            coded = io.BytesIO()
            Image.fromarray(drawing(kind, 100 * number + index)).save(coded, "jpeg", quality=92)
            folder.label(FrameKey("gate", 1000 * number + index), kind, f"m{index}", coded.getvalue())


def wait(teacher: LabelledHeadTeacher) -> dict[str, Any]:
    """The outcome. Patience begins anew with each step that the process reports."""
    deadline, last = time.monotonic() + PATIENCE_S, None
    while (progress := teacher.state()["progress"]) is not None:
        if progress != last:
            deadline, last = time.monotonic() + PATIENCE_S, progress
        assert time.monotonic() < deadline, teacher.state()
        time.sleep(0.1)
    outcome: dict[str, Any] = teacher.state()["outcome"]
    return outcome


@pytest.mark.campaign
def test_a_head_is_taught_compared_and_taken_back(folder):
    heads = FakeHeads()
    teacher = teacher_of(folder, heads)
    label(folder, 0, 3)
    teacher.begin()
    with pytest.raises(UsageError, match="teaching is going on"):
        teacher.begin()
    first = wait(teacher)
    assert first["kind"] == "good", first
    assert "of 9 right" in first["text"]
    assert heads.heads[-1] is not None
    assert heads.heads[-1].classes == CLASSES
    with pytest.raises(UsageError, match="no picture was labelled since"):
        teacher.begin()

    label(folder, 3, 1)
    teacher.begin()
    second = wait(teacher)
    assert "On 3 pictures labelled since: new head " in second["text"], second
    assert "head in use " in second["text"]
    if second["kind"] == "note":
        assert len(heads.heads) == 2
        teacher.use()
    assert len(heads.heads) == 3
    assert sorted(path.suffix for path in (folder.state_folder / "heads").iterdir()) == [".head", ".head"]
    teacher.take_back()
    teacher.take_back()
    with pytest.raises(UsageError, match="no earlier head"):
        teacher.take_back()

    heads.heads.append(heads.heads[0] or _head_of(folder))
    for path in (folder.folder / CLASSES[0]).iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=f"no picture of {CLASSES[0]!r}"):
        teacher.begin()


def _head_of(folder: LabelFolder) -> Head:
    from sagelink.models.heads.head import read_head

    return read_head(min((folder.state_folder / "heads").iterdir()))


@pytest.mark.campaign
def test_what_teach_refuses_is_shown_and_nothing_is_loaded(folder):
    heads = FakeHeads()
    teacher = teacher_of(folder, heads)
    label(folder, 0, 1)
    teacher.begin()
    outcome = wait(teacher)
    assert (outcome["kind"], heads.heads) == ("bad", [None])
    assert "too few pictures" in outcome["text"]


def test_a_process_that_dies_and_one_that_is_stopped(folder):
    teacher = teacher_of(folder, FakeHeads())
    label(folder, 0, 3)
    teacher.begin()
    assert teacher._process is not None
    teacher._process.kill()
    assert "ended with code -9" in wait(teacher)["text"]
    teacher.begin()
    process = teacher._process
    teacher.stop()
    assert process is not None
    assert process.poll() is not None
    assert wait(teacher)["text"] == "Teaching was stopped."
    teacher.close()


def test_a_disk_that_cannot_be_written_and_a_machine_without_the_server_model(folder, tmp_path):
    label(folder, 0, 1)
    (folder.state_folder / "heads").write_text("in the way")
    with pytest.raises(SagelinkError, match="heads"):
        teacher_of(folder, FakeHeads()).begin()
    remote = teacher_of(folder, FakeHeads(), **{"ship.server": "mqtt://127.0.0.1:1883"})
    assert "the server model is on another machine" in remote.state()["reason"]
    with pytest.raises(UsageError, match="pack the pictures"):
        remote.begin()


def test_classes_of_other_folders_are_not_missing(folder, tmp_path):
    for name in CLASSES:
        (tmp_path / "pictures" / name).mkdir(parents=True)
    teacher = teacher_of(folder, FakeHeads(), **{"labels.pictures": [str(tmp_path / "pictures")]})
    assert teacher._missing(HeadCard.model_construct(classes=CLASSES)) == []
    assert teacher._missing(HeadCard.model_construct(classes=("other",))) == ["other"]
    assert Path(folder.folder).exists() is False  # nothing is written before the first label
