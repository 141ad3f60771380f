"""A recording that rotates: read as one, without its oldest parts, after a kill, and on a full disk."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.disk_keeper import DiskKeeper
from sagelink.pipeline.quantities import parse_retention
from sagelink.pipeline.types import Verdict
from sagelink.stages.recording_reader import RecordingReader
from sagelink.stages.sinks import recording_writer
from sagelink.stages.sinks.recording_writer import RecordingWriter
from tests.fakes import make_frame
from tests.stages.test_event_pictures import LABELS, verdict

CLOSED = "parts/[0-9][0-9][0-9][0-9][0-9][0-9]"


def shot(seq: int) -> Verdict:
    """A verdict on a frame whose grey level is four times its number."""
    return replace(verdict(0, 0.9), frame=make_frame(seq, float(seq), np.full((40, 60, 3), 4 * seq, np.uint8)))


class Clock:
    """The time of a recording, in s."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def record(folder: Path, clock: Clock, keeper: DiskKeeper | None = None) -> RecordingWriter:
    """Rotates every ten seconds."""
    folder.mkdir(exist_ok=True)
    rotate = parse_retention("10s")
    return RecordingWriter(folder, "{}\n", {}, LABELS, False, list, rotate=rotate, keeper=keeper, clock_s=clock)


def write(writer: RecordingWriter, clock: Clock, *seqs: int) -> None:
    for seq in seqs:
        clock.now_s = float(seq)
        writer.write(shot(seq))


def greys(folder: Path) -> list[int]:
    """The grey levels of all pictures, which are four times the numbers of the frames."""
    return [int(picture[0, 0, 0]) for picture in RecordingReader(folder).pictures("camera")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "parts").iterdir())


def test_the_parts_are_read_as_one(tmp_path: Path) -> None:
    clock = Clock()
    writer = record(tmp_path, clock)
    write(writer, clock, *range(25))
    assert names(tmp_path) == ["000001", "000002", "000003.open"]
    writer.close()
    assert sorted(path.name for path in (tmp_path / "parts" / "000001").iterdir()) == [
        *("camera-000.ts", "frames.jsonl.zst", "messages.bin")
    ]
    assert greys(tmp_path) == [4 * seq for seq in range(25)]
    assert RecordingReader(tmp_path).is_whole


def test_a_killed_run_leaves_an_open_part(tmp_path: Path) -> None:
    clock = Clock()
    writer = record(tmp_path, clock)
    write(writer, clock, *range(13))
    (tmp_path / "parts" / "000003.open").mkdir()  # killed as it began the next part
    assert RecordingReader(tmp_path).is_whole
    assert len(RecordingReader(tmp_path).rows) == 13
    writer.close()


def test_without_its_oldest_part_frames_are_numbered_from_zero(tmp_path: Path) -> None:
    clock = Clock()
    keeper = DiskKeeper(tmp_path, [CLOSED], parse_retention("12kB"))
    writer = record(tmp_path, clock, keeper)
    write(writer, clock, *range(60))
    writer.close()
    assert names(tmp_path)[0] != "000001"
    reading = RecordingReader(tmp_path)
    assert not reading.is_whole
    assert [seq for _, seq in reading.rows] == [*range(len(reading.rows))]
    assert greys(tmp_path)[-1] == 4 * 59
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 30_000


def test_a_full_disk_costs_old_parts_then_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    keeper = DiskKeeper(tmp_path, [CLOSED], parse_retention("1GB"))
    writer = record(tmp_path, clock, keeper)
    write(writer, clock, *range(15))
    real = recording_writer.to_json
    full = True

    def fails(value: object) -> str:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(value)

    monkeypatch.setattr(recording_writer, "to_json", fails)
    write(writer, clock, 15, 16, 17)
    assert (keeper.lost, "000001" in names(tmp_path)) == (3, False)
    write(writer, clock, 22)
    full = False
    write(writer, clock, 24, 40, 41)
    writer.close()
    assert keeper.lost == 4  # while old parts leave, each frame is tried
    assert not RecordingReader(tmp_path).is_whole
    assert greys(tmp_path)[-2:] == [160, 164]


def test_without_a_keeper_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    writer = record(tmp_path, clock)

    def fails(value: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recording_writer, "to_json", fails)
    with pytest.raises(OSError, match="No space"):
        write(writer, clock, 0)
    writer.close()


def test_a_link_out_of_the_recording_is_refused(tmp_path: Path) -> None:
    clock = Clock()
    writer = record(tmp_path / "rec", clock)
    write(writer, clock, *range(3))
    writer.close()
    (tmp_path / "rec" / "parts" / "000001").rename(tmp_path / "elsewhere")
    (tmp_path / "rec" / "parts" / "000001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="outside its folder"):
        RecordingReader(tmp_path / "rec")
