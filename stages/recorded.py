"""A recording, read back: the folder that `stages.sinks.recording` writes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any, TypeAlias

import av

from pipeline.errors import UsageError
from pipeline.threads import Worker
from pipeline.types import Frame, Pixels
from stages.pictures import upright
from stages.sinks.recording import CONFIG, FRAMES, MESSAGES

Row: TypeAlias = dict[str, Any]  # a line of frames.jsonl
Place: TypeAlias = tuple[str, int]  # camera and seq


class Recording:
    """The folder of a recording, read."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError when it is none."""
        self.folder = folder
        try:
            lines = (folder / FRAMES).read_text(encoding="utf-8").splitlines()
            self._messages = (folder / MESSAGES).read_bytes()
            self.config_text = (folder / CONFIG).read_text(encoding="utf-8")
            self.rows: dict[Place, Row] = {}
            for line in lines:
                row = json.loads(line)
                self.rows[row["verdict"]["camera"], row["verdict"]["seq"]] = row
        except OSError as error:
            raise UsageError(f"recording {str(folder)!r}: {error.filename}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"recording {str(folder)!r}: {FRAMES} cannot be read: {error!r}") from None
        if not self.rows:
            raise UsageError(f"recording {str(folder)!r} holds no frames")

    def message(self, place: Place) -> bytes | None:
        """What was sent for a frame."""
        span = self.rows[place]["message"]
        return None if span is None else self._messages[span[0] : span[0] + span[1]]

    def cameras(self) -> dict[str, list[Row]]:
        """The rows of each camera, in order of capture."""
        cameras: dict[str, list[Row]] = defaultdict(list)
        for (camera, _), row in sorted(self.rows.items()):
            cameras[camera].append(row)
        return cameras

    def pictures(self, camera: str) -> Generator[Pixels]:
        """A camera's pictures, exactly as they were captured. Raises UsageError for a damaged video."""
        for name in dict.fromkeys(row["video"] for row in self.cameras()[camera]):
            try:
                with av.open(str(self.folder / name)) as container:
                    for frame in container.decode(video=0):
                        yield upright(frame)
            except (av.FFmpegError, OSError) as error:
                raise UsageError(f"recording {str(self.folder)!r}: {name}: {error.strerror}") from None


class RecordedCamera:
    """One camera of a recording as a Capture: all its captured frames."""

    live = False
    skipped = 0

    def __init__(self, recording: Recording, name: str, common_time: bool) -> None:
        """`common_time`: frames are timed by the clock that all cameras of the recording share, not by their own."""
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

    async def __aenter__(self) -> RecordedCamera:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._worker.close(last=self._pictures.close)

    async def __aiter__(self) -> AsyncIterator[Frame]:
        for row in self._rows:
            pixels = await self._worker.call(next, self._pictures, None)
            if pixels is None:  # the run was killed before its last pictures were on disk
                return
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
