"""Checks of single output files before any work begins."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.output_files import cannot_open, cannot_write, check_output_file, marked, with_keys

OURS = marked(b"of Sagelink")


def check(path: Path, *sources: Path) -> None:
    check_output_file(path, OURS, "`sagelink x`", sources)


def test_new_empty_and_own_files_are_accepted(tmp_path: Path) -> None:
    check(tmp_path / "new" / "file")
    (tmp_path / "empty").touch()
    check(tmp_path / "empty")
    (tmp_path / "own").write_text("a file of Sagelink")
    check(tmp_path / "own")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    check(tmp_path / "dangling")
    assert (tmp_path / "own").read_text() == "a file of Sagelink"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_files_of_the_user_and_the_source_are_refused(tmp_path: Path, link) -> None:
    target = tmp_path / "film.mp4"
    target.write_text("mine")
    name = tmp_path / "other.mp4" if link else target
    if link:
        link(target, name)
    with pytest.raises(UsageError, match="exists and Sagelink did not write it; accepted: a new file"):
        check(name)
    target.write_text("of Sagelink")  # also an own file is not replaced while it is read
    with pytest.raises(UsageError, match="is the source itself"):
        check(name, target)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in [
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is no regular file"),
        (tmp_path / "pipe" / "file", "is not a folder"),
        (tmp_path / ("x" * 256), "File name too long"),
        (Path("/proc/x/file"), "cannot be written"),
    ]:
        with pytest.raises(UsageError, match=reason):
            check(path)


def test_json_is_recognised_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, ours in [('{"a": 1, "b": 2}', True), ('{"a": 1}', False), ("[]", False), ("{", False), ("\xff", False)]:
        path.write_text(text, encoding="latin-1")
        assert with_keys({"a", "b"})(path) is ours


def test_an_error_names_path_and_cause_in_one_line() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    path = Path("out/results.jsonl")
    for error in (cannot_write(path, full), cannot_open(path, full)):
        assert (str(error), error.exit_code) == (
            "output 'out/results.jsonl' cannot be written: No space left on device",
            1,
        )
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "out/pictures/a.jpg")
    assert str(cannot_write(path, denied)) == "output 'out/pictures/a.jpg' cannot be written: Permission denied"
    assert (cannot_write(path, denied).exit_code, cannot_open(path, denied).exit_code) == (1, 2)
    assert isinstance(cannot_open(path, denied), SagelinkError)
