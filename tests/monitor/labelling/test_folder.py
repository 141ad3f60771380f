"""The folder of labelled pictures: labels, second labels, undo, names, and disks that fail."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagelink.monitor.labelling import folder as label_folder
from sagelink.monitor.labelling.folder import STATE, FrameKey, LabelFolder
from sagelink.pipeline.errors import SagelinkError, UsageError

GATE = FrameKey("gate_1", 7)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and STATE not in path.parts
    }


@pytest.fixture
def labels(tmp_path: Path) -> Iterator[LabelFolder]:
    folder = LabelFolder(tmp_path / "labels", "20261129T0700")
    yield folder
    folder.close()


def test_a_label_writes_the_picture_for_its_owner_alone_and_undo_takes_it_back(labels):
    labels.label(GATE, "open", "m003", b"picture")
    (name,) = files(labels.folder)
    assert name == "open/gate-1-20261129T0700-m003_00007.jpg"
    assert (labels.folder / name).stat().st_mode & 0o777 == 0o600
    assert (labels.folder / "open").stat().st_mode & 0o777 == 0o700
    assert (labels.label_of(GATE), labels.counts()) == ("open", {"open": 1})
    assert labels.undo().after == "open"
    assert files(labels.folder) == {}
    assert not (labels.folder / "open").exists()
    assert (labels.label_of(GATE), labels.counts(), labels.last) == (None, {"open": 0}, None)
    with pytest.raises(UsageError, match="nothing to undo"):
        labels.undo()


def test_a_second_label_replaces_the_first_and_undo_restores_it(labels):
    labels.label(GATE, "open", "m", b"picture")
    labels.label(GATE, "open", "m", b"picture")  # the same again changes nothing
    labels.label(GATE, "shut", "m", None)  # the frame may have left the memory
    assert [name.split("/")[0] for name in files(labels.folder)] == ["shut"]
    labels.undo()
    assert [name.split("/")[0] for name in files(labels.folder)] == ["open"]
    labels.undo()
    assert files(labels.folder) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b", "contains '/'"),
        ("..", "starts with a point"),
        (".hidden", "starts with a point"),
        ("a\nb", "contains"),
        ("a\u202eb", "contains"),
        ("<b>x</b>", "contains '<'"),
        ("", "1 to 100 characters"),
        ("x" * 101, "1 to 100 characters"),
        ("€" * 70, "more than 200 bytes"),
        ("OPEN", "too alike"),
        ("unknown", "reserved"),
    ],
)
def test_a_name_that_cannot_be_a_class_is_refused(labels, name, message):
    labels.label(GATE, "open", "m", b"picture")
    before = files(labels.folder)
    with pytest.raises(UsageError, match=message):
        labels.label(FrameKey("gate", 8), name, "m", b"other")
    assert files(labels.folder) == before


def test_a_name_that_differs_by_case_from_a_class_of_the_head_is_refused(labels):
    with pytest.raises(UsageError, match="too alike"):
        labels.label(GATE, "Open", "m", b"picture", known=("open", "shut"))


def test_nothing_foreign_is_overwritten_or_deleted(labels):
    foreign = labels.folder / "open" / "gate-1-20261129T0700-m_00007.jpg"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"the user's")
    with pytest.raises(SagelinkError, match="cannot be written"):
        labels.label(GATE, "open", "m", b"picture")
    assert files(labels.folder) == {"open/gate-1-20261129T0700-m_00007.jpg": b"the user's"}
    other = FrameKey("gate", 9)
    labels.label(other, "open", "m", b"picture")
    ours = labels.folder / "open" / "gate-20261129T0700-m_00009.jpg"
    ours.write_bytes(b"edited by the user")
    labels.undo()
    assert ours.read_bytes() == b"edited by the user"
    assert labels.label_of(other) is None


def test_a_class_that_is_a_link_or_a_file_is_refused(labels, tmp_path):
    labels.folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (labels.folder / "link").symlink_to(tmp_path / "elsewhere")
    (labels.folder / "file").write_text("x")
    for name in ("link", "file"):
        with pytest.raises(UsageError, match="no folder of this place"):
            labels.label(GATE, name, "m", b"picture")
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_a_full_disk_leaves_no_half_label(labels, monkeypatch):
    labels.label(GATE, "open", "m", b"picture")
    ledger = (labels.state_folder / "ledger.jsonl").read_bytes()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(label_folder.os, "write", full)  # the picture fits, its line does not
    with pytest.raises(SagelinkError, match="No space left"):
        labels.label(FrameKey("gate", 8), "shut", "m", b"other")
    monkeypatch.setattr(label_folder, "write_new", full)
    with pytest.raises(SagelinkError, match="No space left"):
        labels.label(FrameKey("gate", 9), "shut", "m", b"other")
    monkeypatch.undo()
    assert [*files(labels.folder).values()] == [b"picture"]
    assert (labels.state_folder / "ledger.jsonl").read_bytes() == ledger
    assert labels.counts()["open"] == 1
    assert labels.counts().get("shut", 0) == 0
    labels.label(FrameKey("gate", 8), "shut", "m", b"other")  # when there is room again
    assert labels.counts() == {"open": 1, "shut": 1}


def test_labels_of_a_recording_are_found_again_and_those_of_another_session_are_not(tmp_path):
    first = LabelFolder(tmp_path, "clip-1")
    first.label(GATE, "open", "m", b"picture")
    first.close()
    assert LabelFolder(tmp_path, "clip-1").label_of(GATE) == "open"
    assert LabelFolder(tmp_path, "clip-2").label_of(GATE) is None
    assert LabelFolder(tmp_path, "clip-2").counts() == {"open": 1}


def test_two_processes_do_not_label_into_one_folder(tmp_path):
    first, second = LabelFolder(tmp_path, "a"), LabelFolder(tmp_path, "b")
    first.label(GATE, "open", "m", b"picture")
    with pytest.raises(UsageError, match="another process labels"):
        second.label(GATE, "open", "m", b"picture")
    first.close()
    second.label(GATE, "open", "m", b"picture")
    second.close()


def test_lines_of_the_ledger_that_cannot_be_read_or_lead_outside_are_left_out(tmp_path):
    first = LabelFolder(tmp_path / "labels", "s")
    first.label(GATE, "open", "m", b"picture")
    first.close()
    ledger = tmp_path / "labels" / STATE / "ledger.jsonl"
    line = json.loads(ledger.read_text())
    bad = [line | {"seq": 1, "file": "../../victim"}, line | {"seq": 2, "class": "../.."}, {"session": "s"}]
    (tmp_path / "victim").write_bytes(b"picture")
    ledger.write_text(ledger.read_text() + "\n".join(map(json.dumps, bad)) + '\n[]\n"x"\n{"torn')
    again = LabelFolder(tmp_path / "labels", "s")
    assert again.labelled() == {GATE: "open"}
    again.label(FrameKey("gate", 3), "open", "m", b"other")
    again.close()
    assert ledger.read_text().splitlines()[-2] == '{"torn'
    assert json.loads(ledger.read_text().splitlines()[-1])["seq"] == 3


def test_a_class_that_vanishes_is_seen_at_the_next_count(labels):
    labels.label(GATE, "open", "m", b"picture")
    for path in (labels.folder / "open").iterdir():
        path.unlink()
    assert labels.count() == {"open": 0}
    labels.undo()  # there is nothing to delete any more
    assert labels.label_of(GATE) is None
