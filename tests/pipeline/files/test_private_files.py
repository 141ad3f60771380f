"""Private files: modes, whole lines on a full disk, files that vanish, replacements in one step."""

from __future__ import annotations

import contextlib
import errno
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagelink.pipeline.files import private_files
from sagelink.pipeline.files.private_files import (
    LineFile,
    make_private_folder,
    open_emptied,
    open_new,
    replace_text,
    replacing,
    write_new,
)


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes, as if the disk were full there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(lines: LineFile) -> None:
    """Writes lines of 100 bytes until no more fit."""
    for number in range(10):
        lines.write(f"{number:099}")
    with pytest.raises(OSError, match="File too large"):
        lines.write("x" * 99)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_line_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = LineFile(path)
    with file_size_limit(1000):
        fill(lines)
        lines.close()
    assert path.read_text() == "".join(f"{number:099}\n" for number in range(10))
    with file_size_limit(1050):  # the eleventh line fits in part
        lines = LineFile(tmp_path / "more")
        fill(lines)
        lines.close()
    assert (tmp_path / "more").read_text() == path.read_text()


def test_lines_into_a_deleted_folder_are_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    lines = LineFile(folder / "lines")
    lines.write("one")
    (folder / "lines").unlink()
    (folder / "lines").touch()  # another file with the same name
    with pytest.raises(FileNotFoundError, match="deleted or moved"):
        lines.write("two")
    (folder / "lines").unlink()
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match="deleted or moved"):
        lines.close()


def test_a_new_file_takes_no_place_and_a_partial_one_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    with file_size_limit(100), pytest.raises(OSError, match="File too large"):
        write_new(path, bytes(200))
    assert not path.exists()
    write_new(path, b"first")
    with pytest.raises(FileExistsError):
        write_new(path, b"second")
    assert path.read_bytes() == b"first"


def test_a_replacement_is_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".txt")  # no room for a longer name beside it
    replace_text(path, "first")
    with file_size_limit(2), pytest.raises(OSError, match="File too large"):
        replace_text(path, "second")
    assert path.read_text() == "first"
    with contextlib.suppress(KeyError), replacing(path) as unfinished:
        unfinished.write_text("third")
        raise KeyError
    assert path.read_text() == "first"
    assert [*tmp_path.iterdir()] == [path]


_WRITER = """
import sys, time
from pathlib import Path
from sagelink.pipeline.files.private_files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write_text("half")
    print(flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Another process replaces the file, is not done, and is killed in the end."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


def test_what_a_killed_process_left_is_removed_and_what_another_one_writes_stays(tmp_path: Path) -> None:
    path, other = tmp_path / "site.resume", tmp_path / "site2.resume"
    with writing(other):
        pass
    with writing(path):
        replace_text(path, "whole")
        assert len([*tmp_path.glob(".sagelink-*")]) == 2
    replace_text(path, "again")
    assert len([*tmp_path.glob(".sagelink-*")]) == 1
    replace_text(other, "again")
    assert sorted(tmp_path.iterdir()) == [path, other]
    assert path.read_text() == "again"


@pytest.mark.parametrize("is_locked", [True, False])
def test_a_new_file_that_another_process_takes_for_an_abandoned_one_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_locked: bool
) -> None:
    """`is_locked`: the other process still holds its lock when this one asks for it."""
    path, own_lock, removed = tmp_path / "trust.json", private_files.lock, 0

    def lock_late(handle: int) -> bool:
        nonlocal removed
        if removed < 2:
            removed += 1
            for unfinished in tmp_path.glob(".sagelink-*"):
                unfinished.unlink()
            if is_locked:
                raise BlockingIOError
        return own_lock(handle)

    monkeypatch.setattr(private_files, "lock", lock_late)
    replace_text(path, "whole")
    assert removed == 2
    assert path.read_text() == "whole"
    assert [*tmp_path.iterdir()] == [path]


def test_files_are_private(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "a" / "b")
    write_new(tmp_path / "new", b"")
    replace_text(tmp_path / "replaced", "")
    open_new(tmp_path / "opened").close()
    open_emptied(tmp_path / "emptied").close()
    LineFile(tmp_path / "lines").close()
    assert {path.name: mode(path) for path in tmp_path.iterdir() if path.is_file()} == dict.fromkeys(
        ("new", "replaced", "opened", "emptied", "lines"), 0o600
    )
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o700, 0o700)


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    first = open_emptied(tmp_path / "film.mp4")
    first.write(b"a film")
    with pytest.raises(BlockingIOError) as raised:
        open_emptied(tmp_path / "film.mp4")
    assert raised.value.errno == errno.EAGAIN
    assert (tmp_path / "film.mp4").read_bytes() == b"a film"
    first.close()
    open_emptied(tmp_path / "film.mp4").close()
    assert (tmp_path / "film.mp4").read_bytes() == b""
