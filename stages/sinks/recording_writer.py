"""Writes a recording: the frames, messages and replies of a run, so that `sagelink replay` can repeat it.

The folder holds the captured frames of each camera as lossless video (`NAME-000.ts`; a new file when their size
changes), `frames.jsonl` with one line per frame, `messages.bin` with all sent messages one after the other, and the
configuration without credentials. Frames are recorded after region, mask and sampling. The picture and message of a
frame are written before its line, so a run that is killed leaves a recording that is complete up to its last line.
A recording that rotates has these files in a folder of each part: `parts/000001` and so on; the part that is still
written is `parts/000002.open`. docs/replay.md lists the keys.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av

from sagelink.pipeline.answers import TaughtClasses
from sagelink.pipeline.budget.wire_ledger import LedgerEntry
from sagelink.pipeline.files.disk_keeper import DiskKeeper, is_full
from sagelink.pipeline.files.json_text import to_json
from sagelink.pipeline.files.output_files import CONFIG, FRAMES, MESSAGES, PARTS
from sagelink.pipeline.files.private_files import LineFile, make_private_folder, open_new, write_new
from sagelink.pipeline.files.rotating_lines import compress
from sagelink.pipeline.quantities import RetentionLimit
from sagelink.pipeline.types import Frame, Verdict
from sagelink.stages.sinks.jsonl import record
from sagelink.transport.reply_message import encode_reply

log = logging.getLogger(__name__)

OPEN_PART = ".open"  # ends the name of the part that is still written
_RETRY_S = 5.0  # while the disk is full
KEYS = frozenset(
    ("video", "pts_s", "capture_ns", "wall_ns", "stream_s", "at_s", "asked_s", "sent_s", "message", "reply", "verdict")
)
_TIME_BASE = Fraction(1, 90_000)
# Lossless H.264 in RGB: a third smaller than FFV1, and four times as fast (640x360, measured).
_CODEC, _OPTIONS = "libx264rgb", {"qp": "0", "preset": "ultrafast", "tune": "zerolatency"}


def head_file(fingerprint: bytes) -> str:
    """Name of a head file in a recording."""
    return f"{fingerprint.hex()}.head"


class RecordingWriter:
    """A sink that writes a recording."""

    def __init__(
        self,
        folder: Path,
        config_text: str,
        files: Mapping[str, bytes],
        labels: tuple[str, ...],
        live: bool,
        ledger_entries: Callable[[], Sequence[LedgerEntry]],
        head_content: Callable[[bytes], bytes] = lambda fingerprint: b"",
        rotate: RetentionLimit | None = None,
        keeper: DiskKeeper | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder`: one without a recording. `config_text`: YAML without credentials. `files`: by name, the content of
        the files that the configuration names. `live`: frames are timed by their capture, else by stream time.
        `ledger_entries` returns the connection's own entries in the ledger since its last call. `head_content`: the
        head file with this fingerprint. `rotate`: a new part begins at this age or size. `keeper`: deletes old parts;
        with it, a full disk is no error, and frames without room are counted.
        """
        write_new(folder / CONFIG, config_text.encode())
        for name, content in files.items():
            write_new(folder / name, content)
        self._folder = folder
        self._labels = labels
        self._live = live
        self._head_content = head_content
        self._heads: set[bytes] = set()  # fingerprints of the written head files
        self._ledger_entries = ledger_entries
        self._first_ns: int | None = None
        self._rotate = rotate or RetentionLimit()
        self._keeper = keeper
        self._clock_s = clock_s
        self._number = 0
        self._rotates = rotate is not None or keeper is not None
        self._is_writing = True
        self._part: _Part | None = self._begin_part()  # None: the disk is full
        self._began_s = self._tried_s = clock_s()

    def write(self, verdict: Verdict) -> None:
        """Raises OSError and av.FFmpegError; with a keeper, not for a full disk."""
        try:
            row = self._row(verdict)
            if self._part is None or self._is_due(self._part):
                self._next_part()
            if self._part is not None:
                self._part.write(verdict, row)
                self._note(writing=True)
                return
        except (OSError, av.FFmpegError) as error:
            if self._keeper is None or not is_full(error):
                raise
            self._end_part()  # what it holds up to here can be read
            self._note(writing=False)
            if self._keeper.make_room():
                self._tried_s = -math.inf
        assert self._keeper is not None
        self._keeper.count_lost()

    def _is_due(self, part: _Part) -> bool:
        limit = self._rotate
        return (limit.size_bytes is not None and part.size_bytes > limit.size_bytes) or (
            limit.age_s is not None and self._clock_s() - self._began_s >= limit.age_s
        )

    def _next_part(self) -> None:
        """Ends the part, if there is one, and begins the next; on a full disk only from time to time."""
        now_s = self._clock_s()
        if self._part is None and now_s - self._tried_s < _RETRY_S:
            return
        self._tried_s = now_s
        self._end_part()
        if self._keeper is not None:
            self._keeper.tidy()
        self._part, self._began_s = self._begin_part(), now_s

    def _note(self, writing: bool) -> None:
        """Logs each change."""
        if writing == self._is_writing:
            return
        self._is_writing = writing
        if writing:
            log.info("event=recording_goes_on folder=%s", self._folder)
        else:
            log.warning("event=recording_stopped folder=%s reason='the disk is full'", self._folder)

    def _begin_part(self) -> _Part:
        if not self._rotates:
            return _Part(self._folder)
        self._number += 1
        folder = self._folder / PARTS / f"{self._number:06d}{OPEN_PART}"
        make_private_folder(folder)
        try:
            return _Part(folder)
        except OSError:
            self._number -= 1
            for name in (FRAMES, MESSAGES):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
            raise

    def _end_part(self) -> None:
        """With a keeper, errors are ignored: each frame was written whole before its line."""
        part, self._part = self._part, None
        if part is None:
            return
        try:
            part.close()
            if self._rotates:
                compress(part.folder / FRAMES)
        except (OSError, av.FFmpegError):
            if self._keeper is None:
                raise
        finally:
            if self._rotates:
                part.folder.rename(part.folder.with_suffix(""))

    def _row(self, verdict: Verdict) -> dict[str, object]:
        """The line of a frame, without the places of its picture and its message."""
        frame = verdict.frame
        return {
            "pts_s": frame.pts_s,
            "capture_ns": frame.capture_ns,
            "wall_ns": frame.wall_ns,
            "stream_s": frame.stream_s,
            "at_s": self._at_s(frame),
            "asked_s": verdict.asked_s,
            "bound_bits": verdict.bound_bits,
            "bit_price": verdict.bit_price,
            "sent_s": verdict.sent_s,
            "heard": verdict.provisional.observed_seqs if verdict.provisional else [],
            "head": self._head(verdict.taught),
            "further": {answer.head: self._head(answer.taught) for answer in verdict.further},
            "ledger": self._ledger_entries(),
            "reply": encode_reply(verdict.reply).hex() if verdict.reply else None,
            "verdict": record(verdict, self._labels),
        }

    def _head(self, taught: TaughtClasses | None) -> str | None:
        """Writes the head of a frame, once; returns its fingerprint."""
        if taught is None:
            return None
        if taught.fingerprint not in self._heads:
            write_new(self._folder / head_file(taught.fingerprint), self._head_content(taught.fingerprint))
            self._heads.add(taught.fingerprint)
        return taught.fingerprint.hex()

    def _at_s(self, frame: Frame) -> float:
        """Time in s on the clock that all cameras of the run share."""
        if not self._live:
            return frame.stream_s
        self._first_ns = frame.capture_ns if self._first_ns is None else self._first_ns
        return (frame.capture_ns - self._first_ns) / 1e9

    def close(self) -> None:
        self._end_part()


class _Part:
    """Frames, messages and videos of a recording, or of a part of one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with ExitStack() as stack:
            self._frames = LineFile(folder / FRAMES)
            stack.callback(self._frames.close)
            self._messages = stack.enter_context(open_new(folder / MESSAGES))
            self._files = stack.pop_all()
        self._offset = 0
        self._line_bytes = 0
        self._videos: dict[str, _Video] = {}
        self._ended_videos_bytes = 0

    @property
    def size_bytes(self) -> int:
        open_bytes = sum(video.size_bytes for video in self._videos.values())
        return self._offset + self._line_bytes + self._ended_videos_bytes + open_bytes

    def write(self, verdict: Verdict, row: Mapping[str, object]) -> None:
        line = to_json({"video": self._video(verdict.frame), "message": self._message(verdict.message), **row})
        self._frames.write(line)
        self._line_bytes += len(line)

    def _video(self, frame: Frame) -> str:
        """Adds the frame to the video of its camera; returns the name of that file."""
        video = self._videos.get(frame.camera)
        height, width = frame.pixels.shape[:2]
        if video is None or video.size != (width, height):
            number = 0 if video is None else video.number + 1
            if video is not None:
                self._ended_videos_bytes += video.size_bytes
                video.close()
            video = self._videos[frame.camera] = _Video(self.folder, frame.camera, number, (width, height))
        video.write(frame)
        return video.name

    def _message(self, message: bytes | None) -> list[int] | None:
        """Writes a message; returns its offset and length in messages.bin."""
        if message is None:
            return None
        self._messages.write(message)
        self._offset += len(message)
        return [self._offset - len(message), len(message)]

    def close(self) -> None:
        with self._files as stack:
            for video in self._videos.values():
                stack.callback(video.close)


class _Video:
    """One video file: frames of one camera and size."""

    def __init__(self, folder: Path, camera: str, number: int, size: tuple[int, int]) -> None:
        self.name = f"{camera}-{number:03d}.ts"
        self.number = number
        self.size = size
        # MPEG-TS is written at once; Matroska would hold seconds in memory, and lose them when the process dies.
        self._file = open_new(folder / self.name)
        self._container = av.open(self._file, "w", format="mpegts", options={"flush_packets": "1"})
        stream = self._container.add_stream(_CODEC, rate=30, options=_OPTIONS)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "rgb24"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        self._stream = stream
        self._last_pts = -1

    def write(self, frame: Frame) -> None:
        picture = av.VideoFrame.from_ndarray(frame.pixels, format="rgb24")
        picture.pts = self._last_pts = max(round(frame.stream_s / _TIME_BASE), self._last_pts + 1)
        picture.time_base = _TIME_BASE
        self._container.mux(self._stream.encode(picture))

    @property
    def size_bytes(self) -> int:
        return 0 if self._file.closed else self._file.tell()

    def close(self) -> None:
        with self._file, self._container:
            self._container.mux(self._stream.encode(None))
