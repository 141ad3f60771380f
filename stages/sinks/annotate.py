"""Writes annotated video: each frame with its label, probability, outlines of the sent units and a budget bar."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from sagelink.models.preprocess import Resize, view_box
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.files.file_names import ffmpeg_url
from sagelink.pipeline.files.output_files import MADE_BY
from sagelink.pipeline.files.private_files import open_emptied
from sagelink.pipeline.types import Pixels, Verdict

_TIME_BASE = Fraction(1, 90_000)
_MOVFLAGS = "+hybrid_fragmented+empty_moov"
# Without B-frames the fragments need no edit list to keep the times. A process that dies loses at most `g` pictures.
_OPTIONS = {"crf": "23", "preset": "veryfast", "bf": "0", "g": "60"}
_MARK = f"annotated by {MADE_BY}"
_MAX_SIDE, _MIN_SIDE = 1280, 360  # pixels, of the drawn picture
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_COLOURS = {"edge": (200, 200, 200), "server": (90, 200, 255), "fused": (110, 230, 130)}  # RGB
_OUTLINE = (255, 210, 60)


class Painter:
    """Draws a verdict onto its frame."""

    def __init__(self, labels: tuple[str, ...], grid: UnitGrid, resize: Resize) -> None:
        self._labels = labels
        self._grid = grid
        self._resize: Resize = resize

    def draw(self, verdict: Verdict) -> Pixels:
        """RGB (H, W, 3) with even sides: the frame above, text and budget bar below."""
        picture = self.outlined(verdict)
        return np.concatenate([picture, self._caption(verdict, picture.shape[1])])

    def outlined(self, verdict: Verdict, max_side: int = _MAX_SIDE, min_side: int = _MIN_SIDE) -> Pixels:
        """RGB (H, W, 3) with even sides: the frame, scaled to these limits, with its sent units outlined."""
        height, width = verdict.frame.pixels.shape[:2]
        scale = min(max_side / max(height, width), max(1.0, min_side / min(height, width)))
        size = (2 * max(1, round(width * scale / 2)), 2 * max(1, round(height * scale / 2)))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        picture: Pixels = cv2.resize(verdict.frame.pixels, size, interpolation=interpolation)
        self._outline(picture, verdict, size[0] / width, size[1] / height)
        return picture

    def _outline(self, picture: Pixels, verdict: Verdict, x_scale: float, y_scale: float) -> None:
        """Draws a line around the sent units, and dims the rest of the picture."""
        if not len(verdict.units):
            return
        height, width = verdict.frame.pixels.shape[:2]
        left, top, right, bottom = view_box(width, height, self._resize, self._grid.crop_pct, verdict.crop)
        side = self._grid.side
        sent = np.zeros((side, side), bool)
        sent.flat[verdict.units] = True
        columns = np.round(np.linspace(left, right, side + 1) * x_scale).astype(int)
        rows = np.round(np.linspace(top, bottom, side + 1) * y_scale).astype(int)
        sent_area = np.zeros(picture.shape[:2], np.uint8)
        for row, column in zip(*np.nonzero(sent), strict=True):
            sent_area[rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = 1
        picture[sent_area == 0] //= 2
        picture[sent_area != cv2.erode(sent_area, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0)] = (
            _OUTLINE
        )

    def _caption(self, verdict: Verdict, width: int) -> Pixels:
        caption = np.full((64, width, 3), 24, np.uint8)
        colour = _COLOURS[verdict.origin]
        answer = verdict.answer
        title = f"{verdict.label(self._labels)} {answer.prob:.0%}" if answer else "no answer"
        if verdict.sent_s is not None:
            detail = f"{verdict.origin}: {len(verdict.units)} units, {verdict.wire_bits // 8} B"
        else:
            detail = f"{verdict.origin}: not sent ({verdict.drop or 'answered'})"
        if verdict.drop is not None and verdict.sent_s is not None:
            detail += f" ({verdict.drop})"
        if verdict.revised_from is not None:
            detail += f", was {verdict.labels(self._labels)[verdict.revised_from.class_id]}"
        cv2.putText(caption, title, (8, 24), _FONT, 0.65, colour, 1, cv2.LINE_AA)
        cv2.putText(caption, detail, (8, 44), _FONT, 0.45, (210, 210, 210), 1, cv2.LINE_AA)
        if verdict.budget_bits and verdict.window_bits is not None:
            full = width - 16
            cv2.rectangle(caption, (8, 52), (8 + full, 59), (70, 70, 70), -1)
            spent = round(full * min(1.0, verdict.window_bits / verdict.budget_bits))
            cv2.rectangle(caption, (8, 52), (8 + spent, 59), colour, -1)
        return caption


class AnnotatedVideo:
    """A sink: H.264 in MP4 with the stream times of the frames. Frames of another size are fitted into the first.

    It is written in fragments, so it can be played up to the last one also when the process dies; closing it makes it a
    plain MP4 file.
    """

    def __init__(self, path: Path, painter: Painter) -> None:
        """`path`: a new file, or an earlier annotated video, which is replaced."""
        self._painter = painter
        self._path = path
        self._file = open_emptied(path)
        self._container = av.open(self._file, "w", format="mp4", options={"movflags": _MOVFLAGS})
        self._container.metadata["comment"] = _MARK
        self._stream: av.VideoStream | None = None
        self._last_pts = -1

    def write(self, verdict: Verdict) -> None:
        self._file.check_present()
        picture = self._painter.draw(verdict)
        if self._stream is None:
            stream = self._container.add_stream("libx264", rate=30, options=_OPTIONS)
            stream.height, stream.width = picture.shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = _TIME_BASE
            self._stream = stream
        frame = av.VideoFrame.from_ndarray(_fit(picture, self._stream.width, self._stream.height), format="rgb24")
        frame.pts = self._last_pts = max(round(verdict.frame.stream_s / _TIME_BASE), self._last_pts + 1)
        frame.time_base = _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        with self._file, self._container:
            self._file.check_present()
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
            else:
                self._path.unlink()  # no frame came: a file without a picture is no video


class AnnotatedVideos:
    """A sink: one `AnnotatedVideo` per camera."""

    def __init__(self, paths: Mapping[str, Path], painter: Painter) -> None:
        """`paths`: by camera."""
        with ExitStack() as stack:
            self._videos: dict[str, AnnotatedVideo] = {}
            for camera, path in paths.items():
                self._videos[camera] = AnnotatedVideo(path, painter)
                stack.callback(self._videos[camera].close)
            self._open = stack.pop_all()

    def write(self, verdict: Verdict) -> None:
        self._videos[verdict.frame.camera].write(verdict)

    def close(self) -> None:
        self._open.close()


def is_annotated_video(path: Path) -> bool:
    """Recognises videos that `AnnotatedVideo` wrote, also when its process died."""
    try:
        with av.open(ffmpeg_url(path)) as container:
            return container.metadata.get("comment") == _MARK
    except av.FFmpegError:
        return False


def _fit(picture: Pixels, width: int, height: int) -> Pixels:
    """The picture scaled to fit into (height, width) with the same aspect, on black."""
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale)))
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return canvas
