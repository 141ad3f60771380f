"""Reads the folder that `sagelink.stages.sinks.recording_writer` writes: rows, messages and pictures out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Generator
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import av

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.output_files import FRAMES, MESSAGES
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import Frame, Pixels
from sagelink.stages.decoded_picture import FrameConverter
from sagelink.stages.sinks.jsonl import check_keys
from sagelink.stages.sinks.recording_writer import KEYS

Row: TypeAlias = dict[str, Any]  # a line of frames.jsonl
Place: TypeAlias = tuple[str, int]  # camera and seq


class RecordingReader:
    """A recording: its rows and messages, read at once, and its pictures, read on demand."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError for a folder that is not a recording."""
        self.folder = folder
        self.rows: dict[Place, Row] = {}
        try:
            text = (folder / FRAMES).read_text(encoding="utf-8", errors="replace")
            self._messages = (folder / MESSAGES).read_bytes()
        except OSError as error:
            raise UsageError(f"recording {str(folder)!r}: {error.filename}: {error.strerror}") from None
        for number, line in enumerate(text.split("\n")[:-1], 1):  # after the last line break there is no complete line
            try:
                row = json.loads(line)
                if missing := KEYS - row.keys():
                    raise ValueError(f"no {', '.join(sorted(missing))}")
                check_keys(row["verdict"], f"recording {str(folder)!r}: {FRAMES} line {number}")
                self.rows[row["verdict"]["camera"], row["verdict"]["seq"]] = row
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"recording {str(folder)!r}: {FRAMES} line {number} cannot be read: {error}") from None
        if not self.rows:
            raise UsageError(f"recording {str(folder)!r} holds no frames")

    def message(self, place: Place) -> bytes | None:
        """The message that was sent for a frame; None where none was."""
        span = self.rows[place]["message"]
        return None if span is None else self._messages[span[0] : span[0] + span[1]]

    def cameras(self) -> dict[str, list[Row]]:
        """The rows of each camera, in order of capture."""
        cameras: dict[str, list[Row]] = defaultdict(list)
        for (camera, _), row in sorted(self.rows.items()):
            cameras[camera].append(row)
        return cameras

    def pictures(self, camera: str) -> Generator[Pixels]:
        """A camera's pictures, bit-exact as they were captured. Raises UsageError for a damaged video."""
        for name, count in Counter(row["video"] for row in self.cameras()[camera]).items():
            read = 0
            try:
                with av.open(str(self.folder / name)) as container:
                    convert = FrameConverter(name)
                    for frame in islice(container.decode(video=0), count):
                        yield convert(frame)
                        read += 1
            except (av.FFmpegError, OSError, IndexError) as error:
                reason = getattr(error, "strerror", None) or "no video stream"
                raise UsageError(f"recording {str(self.folder)!r}: {name}: {reason}") from None
            if read < count:
                raise UsageError(f"recording {str(self.folder)!r}: {name} is damaged: {read} of {count} pictures")


class RecordedCamera:
    """A Capture of all frames of one camera in a recording."""

    live = False
    skipped = 0

    def __init__(self, recording: RecordingReader, name: str, common_time: bool) -> None:
        """`common_time`: frame times are of the clock that all cameras share, not of the camera's own clock."""
        self.name = name
        self.source = f"{recording.folder}:{name}"
        self.captured = 0
        self._rows = recording.cameras()[name]
        self._pictures = recording.pictures(name)
        self.length: int | None = len(self._rows)
        self._time = "at_s" if common_time else "stream_s"
        self._worker = Worker(f"capture-{name}")

    def health(self) -> None:
        return None

    @property
    def video(self) -> bool:
        """Whether scenes were tracked in the recorded run."""
        return any(row["verdict"].get("scene") is not None for row in self._rows)

    async def __aenter__(self) -> RecordedCamera:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._worker.close(last=self._pictures.close)

    async def __aiter__(self) -> AsyncIterator[Frame]:
        for row in self._rows:
            pixels = await self._worker.call(next, self._pictures)
            self.captured += 1
            yield _frame(row, pixels, row[self._time])


def _frame(row: Row, pixels: Pixels, stream_s: float) -> Frame:
    verdict = row["verdict"]
    return Frame(
        seq=verdict["seq"],
        camera=verdict["camera"],
        capture_ns=row["capture_ns"],
        stream_s=stream_s,
        pixels=pixels,
        capture_ms=0.0,
        name=verdict["name"],
        truth=verdict["truth"],
        wall_ns=row["wall_ns"],
        pts_s=row["pts_s"],
    )
