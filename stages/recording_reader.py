"""Reads the folder that `sagelink.stages.sinks.recording_writer` writes: rows, messages and pictures out.

A recording may come from a stranger: each row is checked before it is used, its files lie in its folder, and whatever
it holds is read within limits.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import av
import zstandard
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from sagelink.models.heads.head import Head, read_head
from sagelink.pipeline.budget.wire_ledger import EntryKind
from sagelink.pipeline.config.schema import MAX_FURTHER_HEADS
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, decode, parse_json
from sagelink.pipeline.files.file_names import shown_name
from sagelink.pipeline.files.output_files import FRAMES, MESSAGES, PARTS
from sagelink.pipeline.files.own_files import own_file
from sagelink.pipeline.threads import Worker
from sagelink.pipeline.types import Drop, Frame, FrameEvent, Pixels
from sagelink.stages.decoded_picture import FrameConverter
from sagelink.stages.sinks.jsonl import check_keys
from sagelink.stages.sinks.recording_writer import KEYS, OPEN_PART, head_file

Row: TypeAlias = dict[str, Any]  # a line of frames.jsonl
Place: TypeAlias = tuple[str, int]  # camera and seq

MAX_ROWS = 2_000_000
_MAX_LINE = 262_144  # bytes
_MAX_ROW_VALUES = 10_000
_MAX_MESSAGE = 16_777_216  # bytes
_PART_NAME = re.compile(rf"[0-9]{{6,9}}({re.escape(OPEN_PART)})?")
_COMPRESSED = ".zst"
_VIDEO_OPTIONS = {"max_pixels": str(16_384**2)}  # of a picture

_Count = Annotated[int, Field(ge=0, lt=2**40)]
_Number = Annotated[int, Field(ge=0, lt=2**32)]
_Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]
_Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_HeadName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_CameraOrNone = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")]
_Seconds = Annotated[FiniteFloat, Field(ge=-1e10, le=1e10)]


class _Class(BaseModel):
    class_id: _Number


class _RecordedEvent(BaseModel):
    id: Annotated[str, Field(max_length=1024)]
    camera: Annotated[str, Field(max_length=512)]
    label: Annotated[str, Field(max_length=100)] | None = None
    score: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = None
    private: bool = False


class _RecordedHeadAnswer(BaseModel):
    """The answers to a frame by a further head."""

    edge: _Class | None = None
    server: _Class | None = None


class _RecordedVerdict(BaseModel):
    """The part of a verdict that a replay reads; all of it is compared."""

    seq: _Number
    camera: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    name: Annotated[str, Field(max_length=4096)] | None
    truth: _Number | None
    event: _RecordedEvent | None = None
    class_id: _Number | None
    origin: Annotated[str, Field(max_length=16)]
    drop: Drop | None
    scene: _Number | None = None
    edge: _Class | None
    server: _Class | None
    heads: Annotated[dict[_HeadName, _RecordedHeadAnswer], Field(max_length=MAX_FURTHER_HEADS)] = {}
    sent_s: _Seconds | None
    wire_bits: _Count
    units: _Count
    lost_units: _Count = 0


class _RecordedRow(BaseModel):
    """A line of frames.jsonl."""

    video: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}-[0-9]{3,9}\.ts$")]
    pts_s: _Seconds | None
    capture_ns: _Nanoseconds
    wall_ns: _Nanoseconds
    stream_s: _Seconds
    at_s: _Seconds
    asked_s: _Seconds | None
    sent_s: _Seconds | None
    bit_price: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    heard: list[_Number] = []
    ledger: list[tuple[_Seconds, _Count, EntryKind, _CameraOrNone]] = []
    message: tuple[_Count, Annotated[int, Field(ge=0, le=_MAX_MESSAGE)]] | None
    head: _Fingerprint | None = None
    further: Annotated[dict[_HeadName, _Fingerprint], Field(max_length=MAX_FURTHER_HEADS)] | None = None
    reply: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){0,4096}$")] | None
    verdict: _RecordedVerdict


@dataclass(frozen=True, slots=True)
class _PartFiles:
    """The files of a part of a recording; names are relative to the folder of the recording."""

    frames: str
    messages: str
    prefix: str  # of the names of videos
    message_bytes: int


class RecordingReader:
    """A recording: its rows, read at once, and its messages and pictures, read on demand.

    `is_whole`: whether it holds every frame of the run; a recording that rotates loses its oldest parts, and a full
    disk leaves frames out. The frames of each camera are numbered 0, 1, 2 ... either way.
    """

    def __init__(self, folder: Path) -> None:
        """Raises UsageError for a folder that is not a recording."""
        self.folder = folder
        self.is_whole = True
        self._what = f"recording {str(folder)!r}"
        self.rows: dict[Place, Row] = {}
        self._parts: dict[Place, _PartFiles] = {}
        try:
            for part in self._part_files():
                self._read(part)
        except (FileNotFoundError, NotADirectoryError):
            accepted = "the folder that `sagelink run --record` wrote"
            raise UsageError(f"{self._what}: there is no {FRAMES} in it; accepted: {accepted}") from None
        except OSError as error:
            raise UsageError(f"{self._what}: {error.filename}: {error.strerror}") from None
        except zstandard.ZstdError as error:
            raise UsageError(f"{self._what}: {FRAMES}{_COMPRESSED}: {error}") from None
        if not self.rows:
            raise UsageError(f"{self._what} holds no frames")
        self._number_frames()

    def _part_files(self) -> Iterator[_PartFiles]:
        """The parts that are here, oldest first; the recording itself where it has none."""
        prefixes = [""]
        if (self.folder / PARTS).is_dir():
            names = sorted(path.name for path in (self.folder / PARTS).iterdir() if _PART_NAME.fullmatch(path.name))
            prefixes = [f"{PARTS}/{name}/" for name in names]
        for prefix in prefixes:
            frames = prefix + FRAMES
            if prefix and not (self.folder / frames).exists():
                frames += _COMPRESSED
                if not (self.folder / frames).exists():
                    continue  # its process was killed as it began, or as it deleted it
            own_file(self.folder, frames, self._what).stat()
            messages = own_file(self.folder, prefix + MESSAGES, self._what)
            yield _PartFiles(frames, prefix + MESSAGES, prefix, messages.stat().st_size)

    def _read(self, part: _PartFiles) -> None:
        for number, line in enumerate(self._lines(part), 1):
            row = self._row(part, line, number)
            place = row["verdict"]["camera"], row["verdict"]["seq"]
            self.rows[place], self._parts[place] = row, part

    def _number_frames(self) -> None:
        """Numbers the frames of each camera from 0 on, without a gap."""
        rows, parts = {}, {}
        seqs: Counter[str] = Counter()
        for place in sorted(self.rows):
            camera, seq = place
            number = seqs[camera]
            seqs[camera] += 1
            self.is_whole = self.is_whole and seq == number
            self.rows[place]["verdict"]["seq"] = number
            rows[camera, number], parts[camera, number] = self.rows[place], self._parts[place]
        if not self.is_whole:
            self.rows, self._parts = rows, parts

    def _lines(self, part: _PartFiles) -> Iterator[bytes]:
        """The complete lines of a part; after a kill, the last line is incomplete and has no line break."""
        with own_file(self.folder, part.frames, self._what).open("rb") as opened:
            file = opened
            if part.frames.endswith(_COMPRESSED):
                file = BufferedReader(zstandard.ZstdDecompressor().stream_reader(opened))
            for number in range(1, MAX_ROWS + 2 - len(self.rows)):
                line = file.readline(_MAX_LINE + 1)
                if len(line) > _MAX_LINE:
                    raise self._unreadable(part, number, f"it has more than {_MAX_LINE} bytes")
                if not line.endswith(b"\n"):
                    return
                yield line
        raise UsageError(f"{self._what}: {FRAMES} has too many lines; accepted: up to {MAX_ROWS}")

    def _row(self, part: _PartFiles, line: bytes, number: int) -> Row:
        """The checked row in a line. Raises UsageError."""
        try:
            row: Row = parse_json(decode(line), max_values=_MAX_ROW_VALUES)
            if not isinstance(row, dict):
                raise DocumentError("not an object")
            if missing := KEYS - row.keys():
                raise DocumentError(f"no {', '.join(sorted(missing))}")
            if isinstance(row["verdict"], dict):
                check_keys(row["verdict"], f"{self._what}: {part.frames} line {number}")
            span = _RecordedRow.model_validate(row, strict=False).message
        except DocumentError as error:
            raise self._unreadable(part, number, str(error)) from None
        except ValidationError as error:
            first = error.errors()[0]
            raise self._unreadable(part, number, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if span is not None and sum(span) > part.message_bytes:
            raise self._unreadable(part, number, f"message: it ends at byte {sum(span)} of {part.message_bytes}")
        return row

    def _unreadable(self, part: _PartFiles, number: int, reason: str) -> UsageError:
        return UsageError(f"{self._what}: {part.frames} line {number} cannot be read: {reason}")

    def message(self, place: Place) -> bytes | None:
        """The message that was sent for a frame; None where none was."""
        span = self.rows[place]["message"]
        if span is None:
            return None
        with own_file(self.folder, self._parts[place].messages, self._what).open("rb") as file:
            file.seek(span[0])
            return file.read(span[1])

    def fingerprint(self, frame: Frame) -> bytes | None:
        """Of the head that a frame was scored with; None: the model's own classes."""
        text = self.rows[frame.camera, frame.seq].get("head")
        return None if text is None else bytes.fromhex(text)

    def heads(self) -> list[Head]:
        """All heads that frames were scored with. Raises UsageError for a file that is missing or another head."""
        return self._read_heads(row["head"] for row in self.rows.values() if row.get("head") is not None)

    def further_fingerprints(self, frame: Frame) -> dict[str, bytes] | None:
        """Of the further heads that answered for a frame, by name; None: those of the configuration."""
        found = self.rows[frame.camera, frame.seq].get("further")
        return None if found is None else {name: bytes.fromhex(text) for name, text in found.items()}

    def further_heads(self) -> list[Head]:
        """All further heads that answered for frames. Raises UsageError as `heads` does."""
        return self._read_heads(text for row in self.rows.values() for text in (row.get("further") or {}).values())

    def _read_heads(self, fingerprints: Iterable[str]) -> list[Head]:
        found = []
        for text in sorted(set(fingerprints)):
            name = head_file(bytes.fromhex(text))
            head = read_head(own_file(self.folder, name, self._what))
            if head.taught.fingerprint.hex() != text:
                raise UsageError(f"{self._what}: {name} is not the head that its name says")
            found.append(head)
        return found

    def cameras(self) -> dict[str, list[Row]]:
        """The rows of each camera, in order of capture."""
        cameras: dict[str, list[Row]] = defaultdict(list)
        for (camera, _), row in sorted(self.rows.items()):
            cameras[camera].append(row)
        return cameras

    def pictures(self, camera: str) -> Generator[Pixels]:
        """A camera's pictures, bit-exact as they were captured. Raises UsageError for a damaged video."""
        names = (
            self._parts[place].prefix + self.rows[place]["video"] for place in sorted(self.rows) if place[0] == camera
        )
        for name, count in Counter(names).items():
            read = 0
            path = own_file(self.folder, name, self._what)
            try:
                if not path.stat().st_size:  # FFmpeg would print an error of its own
                    raise UsageError(f"{self._what}: {name} is empty")
                # A file object and a fixed format: a playlist, which names other files and addresses, is not followed.
                with path.open("rb") as file, av.open(file, "r", format="mpegts", options=_VIDEO_OPTIONS) as container:
                    convert = FrameConverter(name)
                    for frame in islice(container.decode(video=0), count):
                        yield convert(frame)
                        read += 1
            except (av.FFmpegError, OSError, IndexError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "no video stream"
                raise UsageError(f"{self._what}: {name}: {reason}") from None
            if read < count:
                raise UsageError(f"{self._what}: {name} is damaged: {read} of {count} pictures")


class RecordedCamera:
    """A Capture of all frames of one camera in a recording."""

    live = False
    skipped = 0

    def __init__(self, recording: RecordingReader, name: str, common_time: bool) -> None:
        """`common_time`: frame times are of the clock that all cameras share, not of the camera's own clock."""
        self.name = name
        self.source = f"{shown_name(recording.folder)}:{name}"
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
        event=_event(verdict.get("event")),
    )


def _event(recorded: Mapping[str, Any] | None) -> FrameEvent | None:
    if recorded is None:
        return None
    event = _RecordedEvent.model_validate(recorded)
    return FrameEvent(event.id, event.camera, event.label, event.score, event.box, event.private)
