"""Run folders: whose they are, who writes them, and what becomes of earlier runs."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest

from sagelink.app.edge.folder import RECORDING_FILES, RUN_FILES, RunFolder
from sagelink.pipeline.errors import UsageError


def files_below(folder: Path) -> dict[str, str]:
    """Content by relative name, without the marker."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".sagelink-run"]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def run_into(folder: Path, mark: str, *more: str) -> None:
    """A run that writes its results, a picture, a summary and `more`."""
    claimed = RunFolder(folder)
    claimed.begin([*RUN_FILES, *more])
    (folder / "pictures").mkdir()
    for name in ("results.jsonl", "summary.json", "pictures/camera-000001.jpg", *more):
        (folder / name).write_text(mark)
    claimed.release()


def archived(folder: Path) -> list[Path]:
    return sorted((folder / "runs").iterdir())


def test_an_earlier_run_moves_and_its_files_stay_whole(tmp_path: Path) -> None:
    for mark in ("first", "second", "third"):
        run_into(tmp_path, mark, "film.mp4")
        (tmp_path / "report.html").write_text(mark)
        (tmp_path / "notes.txt").write_text("mine")
    first, second = archived(tmp_path)
    expected = {"results.jsonl", "summary.json", "pictures/camera-000001.jpg", "film.mp4", "report.html"}
    assert files_below(first) == dict.fromkeys(expected, "first")
    assert files_below(second) == dict.fromkeys(expected, "second")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ", first.name)
    assert (tmp_path / "results.jsonl").read_text() == "third"
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("steps", range(8))
def test_a_process_that_dies_while_it_moves_loses_nothing(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_into(tmp_path, "first", "film.mp4")
    real, done = Path.rename, 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal done
        if done == steps:
            raise KeyboardInterrupt
        done += 1
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        dying = RunFolder(tmp_path)
        if steps < 4:
            with pytest.raises(KeyboardInterrupt):
                dying.begin(RUN_FILES)
            results = [*tmp_path.glob("results.jsonl"), *tmp_path.glob("runs/*/results.jsonl")]
            assert [path.read_text() for path in results] == ["first"]  # readable in one place, never in none
        else:
            dying.begin(RUN_FILES)
        dying.release()
    run_into(tmp_path, "second")
    (only,) = archived(tmp_path)
    assert files_below(only) == dict.fromkeys(
        ("results.jsonl", "summary.json", "pictures/camera-000001.jpg", "film.mp4"), "first"
    )
    assert (tmp_path / "results.jsonl").read_text() == "second"


def test_a_recording_moves_with_its_videos(tmp_path: Path) -> None:
    fixed = [name for name in RECORDING_FILES if not set("*[") & set(name)]
    recording = [*fixed, "0123456789abcdef" * 2 + ".head", "gate-000.ts", "gate-001.ts"]
    for mark in ("first", "second"):
        claimed = RunFolder(tmp_path)
        claimed.begin([*RECORDING_FILES, "gate-[0-9]*.ts"])
        for name in recording:
            (tmp_path / name).write_text(mark)
        claimed.release()
    (first,) = archived(tmp_path)
    assert files_below(first) == dict.fromkeys(recording, "first")


@pytest.mark.parametrize("name", ["holiday.jpg", "results.jsonl", "pictures/holiday.jpg", ".hidden"])
def test_a_folder_of_the_user_is_refused_and_unchanged(tmp_path: Path, name: str) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"holds files and is no folder of Sagelink; accepted: a new folder, an empty"):
        RunFolder(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_the_user_marked_is_accepted(tmp_path: Path) -> None:
    (tmp_path / ".sagelink-run").touch()
    (tmp_path / "results.jsonl").write_text("of an older version")
    (tmp_path / "config.yaml").write_text("mine")
    run_into(tmp_path, "new")
    (old,) = archived(tmp_path)
    assert files_below(old) == {"results.jsonl": "of an older version"}
    assert (tmp_path / "config.yaml").read_text() == "mine"


def test_a_second_run_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "out")
    with pytest.raises(UsageError, match=f"is written by process {os.getpid()}; accepted: another folder"):
        RunFolder(tmp_path / "out")
    first.begin(RUN_FILES)
    with pytest.raises(UsageError, match=f"is written by process {os.getpid()}"):
        RunFolder(tmp_path / "out")
    first.release()
    RunFolder(tmp_path / "out").release()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        RunFolder(tmp_path).begin(RUN_FILES)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    RunFolder(tmp_path).release()


def test_a_folder_in_which_no_run_began_is_removed(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a" / "b").release()
    assert not (tmp_path / "a").exists()
    RunFolder(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["photos", "photos/out", "link", "link/out"])
def test_the_source_and_folders_inside_it_are_refused(tmp_path: Path, out: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "link").symlink_to(photos)
    with pytest.raises(UsageError, match=r"(is|lies in) the source '.*photos'; accepted: a folder outside it"):
        RunFolder(tmp_path / out, [photos])
    assert list(photos.iterdir()) == []


@pytest.mark.parametrize("source", ["pictures", "film.mp4", "pictures/camera-000001.jpg"])
def test_a_source_that_would_move_is_refused(tmp_path: Path, source: str) -> None:
    run_into(tmp_path, "first", "film.mp4")
    with pytest.raises(UsageError, match="is part of the earlier run in the output folder"):
        RunFolder(tmp_path, [tmp_path / source])
    assert (tmp_path / source).exists()


def test_what_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in [
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "file" / "out", "is not a folder"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(UsageError, match=reason):
            RunFolder(path)


def test_new_folders_are_private_and_old_ones_keep_their_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    run_into(tmp_path / "a" / "b", "first")
    run_into(tmp_path / "a" / "b", "second")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")}
    assert [*modes.values()] == [0o755, 0o700, 0o700]
    assert stat.S_IMODE((tmp_path / "a" / "b" / ".sagelink-run").stat().st_mode) == 0o600
    assert {
        stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "b" / "runs", *archived(tmp_path / "a/b"))
    } == {0o700}


@pytest.mark.parametrize(
    "content", ['{"start": "../../../etc", "files": 7, "moving": "../x"}', "[" * 100_000, "\0" * 20, "{"]
)
def test_a_damaged_marker_is_no_obstacle(tmp_path: Path, content: str) -> None:
    run_into(tmp_path, "first")
    (tmp_path / ".sagelink-run").write_text(content)
    run_into(tmp_path, "second")
    (first,) = archived(tmp_path)
    assert first.parent == tmp_path / "runs"
    assert json.loads((tmp_path / ".sagelink-run").read_text())["pid"] == os.getpid()
