"""Files of lines that rotate, and what stays of them on a small or full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from sagelink.pipeline.files.disk_keeper import DiskKeeper
from sagelink.pipeline.files.private_files import LineFile
from sagelink.pipeline.files.rotating_lines import RotatingLines, last_lines, part_patterns, read_lines
from sagelink.pipeline.quantities import RetentionLimit, parse_retention

NAME = "results.jsonl"


def write(folder: Path, count: int, rotate: str, keeper: DiskKeeper | None = None, first: int = 0) -> RotatingLines:
    lines = RotatingLines(folder / NAME, parse_retention(rotate), keeper)
    for number in range(first, first + count):
        lines.write(f'{{"seq": {number:06d}}}')  # 16 bytes with its end
    lines.close()
    return lines


def numbers(folder: Path) -> list[int]:
    return [int(line[8:14]) for _, line in read_lines(folder, NAME)]


def keep(folder: Path, limit: RetentionLimit, **options: Any) -> DiskKeeper:
    return DiskKeeper(folder, part_patterns(NAME), limit, **options)


def test_a_rotated_set_is_read_as_one(tmp_path: Path) -> None:
    write(tmp_path, 25, "160B")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("results.000001.jsonl.zst", "results.000002.jsonl.zst", "results.jsonl")
    ]
    assert numbers(tmp_path) == [*range(25)]
    assert [where for where, _ in read_lines(tmp_path, NAME)][11] == f"{tmp_path / 'results.000002.jsonl.zst'}:2"
    assert [int(line[8:14]) for line in last_lines(tmp_path, NAME, 12)] == [*range(13, 25)]


def test_a_part_that_a_killed_run_did_not_compress_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, 25, "160B")
    first = [line for where, line in read_lines(tmp_path, NAME) if "000001" in where]
    (tmp_path / "results.000001.jsonl").write_text("".join(first))
    assert numbers(tmp_path) == [*range(25)]
    (tmp_path / "results.000001.jsonl.zst").unlink()
    assert numbers(tmp_path) == [*range(25)]


def test_a_file_rotates_by_age(tmp_path: Path) -> None:
    now_s = 0.0
    lines = RotatingLines(tmp_path / NAME, parse_retention("1h"), clock_s=lambda: now_s)
    for now_s in (0.0, 3599.0, 3600.0, 7201.0):  # noqa: B007 (the clock reads it)
        lines.write("{}")
    lines.close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        *("results.000001.jsonl.zst", "results.000002.jsonl.zst", "results.jsonl")
    ]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    write(tmp_path, 25, "160B")
    (tmp_path / "results.000001.jsonl.zst").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="zstd"):
        numbers(tmp_path)
    assert len(last_lines(tmp_path, NAME, 100)) == 15


def test_the_oldest_parts_leave_beyond_the_size(tmp_path: Path) -> None:
    keeper = keep(tmp_path, parse_retention("600B"))
    write(tmp_path, 400, "160B", keeper)
    left = numbers(tmp_path)
    assert left == [*range(left[0], 400)]
    assert left[0] > 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 600 + 160


def test_parts_that_are_too_old_leave_and_files_of_others_stay(tmp_path: Path) -> None:
    write(tmp_path, 35, "160B")
    os.utime(tmp_path / "results.000001.jsonl.zst", (1000, 1000))
    (tmp_path / "mine.txt").write_text("mine")
    os.utime(tmp_path / "mine.txt", (1000, 1000))
    keep(tmp_path, parse_retention("30d")).tidy()
    assert numbers(tmp_path) == [*range(10, 35)]
    assert (tmp_path / "mine.txt").exists()


def test_empty_folders_of_earlier_runs_leave_with_their_files(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "2026"
    (run / "pictures").mkdir(parents=True)
    (run / "pictures" / "a.jpg").write_bytes(b"x")
    (run / "results.jsonl").write_bytes(b"x")
    keeper = DiskKeeper(tmp_path, ["runs/*/pictures/*.jpg", "runs/*/results.jsonl"], parse_retention("1B"))
    assert keeper.make_room()
    assert keeper.make_room()
    assert not keeper.make_room()
    assert [*tmp_path.rglob("*")] == [tmp_path / "runs"]


class FullDisk:
    """Makes `LineFile.write` fail while the folder holds more than `size` bytes."""

    def __init__(self, folder: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size = size
        write = LineFile.write

        def limited(file: LineFile, line: str) -> None:
            if sum(path.stat().st_size for path in folder.iterdir()) + len(line) > self.size:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(file, line)

        monkeypatch.setattr(LineFile, "write", limited)


def test_on_a_full_disk_the_oldest_parts_leave_and_then_lines_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk(tmp_path, 400, monkeypatch)
    keeper = keep(tmp_path, RetentionLimit())
    lines = write(tmp_path, 200, "160B", keeper)
    assert numbers(tmp_path)[-1] == 199
    assert keeper.lost == 0
    disk.size = 0
    lines = RotatingLines(tmp_path / "events.jsonl", None, keeper)
    for _ in range(3):
        lines.write("{}")
    assert keeper.lost == 3
    assert caplog.text.count("event=disk_full") == 1
    disk.size = 10**6
    lines.write("{}")
    assert keeper.lost == 3
    lines.close()


def test_without_a_keeper_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(tmp_path, 0, monkeypatch)
    lines = RotatingLines(tmp_path / NAME)
    with pytest.raises(OSError, match="No space"):
        lines.write("{}")
    lines.close()
