"""Writes a recording: the frames, messages and replies of a run, so that `sagelink replay` can repeat it.

The folder holds the captured frames of each camera as lossless video (`NAME-000.ts`; a new file when their size
changes), `frames.jsonl` with one line per frame, `messages.bin` with all sent messages one after the other, and the
configuration without credentials. Frames are recorded after region, mask and sampling. The picture and message of a
frame are written before its line, so a run that is killed leaves a recording that is complete up to its last line.
docs/replay.md lists the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av

from sagelink.pipeline.json_text import to_json
from sagelink.pipeline.output_files import CONFIG, FRAMES, MESSAGES
from sagelink.pipeline.private_files import LineFile, open_new, write_new
from sagelink.pipeline.types import Frame, TaughtClasses, Verdict
from sagelink.pipeline.wire_ledger import LedgerEntry
from sagelink.stages.sinks.jsonl import record
from sagelink.transport.wire import encode_reply

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
    ) -> None:
        """`folder`: one without a recording. `config_text`: YAML without credentials. `files`: by name, the content of
        the files that the configuration names. `live`: frames are timed by their capture, else by stream time.
        `ledger_entries` returns the connection's own entries in the ledger since its last call. `head_content`: the
        head file with this fingerprint.
        """
        write_new(folder / CONFIG, config_text.encode())
        for name, content in files.items():
            write_new(folder / name, content)
        self._folder = folder
        self._labels = labels
        with ExitStack() as stack:
            self._frames = LineFile(folder / FRAMES)
            stack.callback(self._frames.close)
            self._messages = stack.enter_context(open_new(folder / MESSAGES))
            self._files = stack.pop_all()
        self._offset = 0
        self._live = live
        self._head_content = head_content
        self._heads: set[bytes] = set()  # fingerprints of the written head files
        self._ledger_entries = ledger_entries
        self._first_ns: int | None = None
        self._videos: dict[str, _Video] = {}

    def write(self, verdict: Verdict) -> None:
        frame = verdict.frame
        row = {
            "video": self._video(frame),
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
            "ledger": self._ledger_entries(),
            "message": self._message(verdict.message),
            "reply": encode_reply(verdict.reply).hex() if verdict.reply else None,
            "verdict": record(verdict, self._labels),
        }
        self._frames.write(to_json(row))

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

    def _video(self, frame: Frame) -> str:
        """Adds the frame to the video of its camera; returns the name of that file."""
        video = self._videos.get(frame.camera)
        height, width = frame.pixels.shape[:2]
        if video is None or video.size != (width, height):
            number = 0 if video is None else video.number + 1
            if video is not None:
                video.close()
            video = self._videos[frame.camera] = _Video(self._folder, frame.camera, number, (width, height))
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

    def close(self) -> None:
        with self._file, self._container:
            self._container.mux(self._stream.encode(None))
