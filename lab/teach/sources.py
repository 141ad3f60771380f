"""Finds labelled pictures in class folders, CSV files, labelled clips and recordings, without reading the files.

A group is a sequence or a place. It is what the CSV file says, the interval of a clip, or what stands before the first
`_` of a file's name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from sagelink.models.heads.combinations import NONE, classes_in, label_of
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.output_files import is_recording
from sagelink.pipeline.types import Pixels
from sagelink.stages.recording_reader import RecordingReader
from sagelink.stages.sources.image_file import SUFFIXES
from sagelink.stages.sources.video import VideoFile

MAX_SIDE = 1280  # pixels: larger pictures are scaled down; both models see far fewer
_VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".ts")
_JPEG_QUALITY = 95  # of frames of a video
_FRAMES_PER_S, _FRAMES_PER_INTERVAL = 2.0, 12  # taken from a clip: neighbouring frames add little


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A labelled picture before it is read."""

    name: str
    label: str
    group: str
    where: Path | bytes  # of an image file, or its content
    at_s: float | None = None  # time in its sequence; None: not known


def one_label(name: str, labels: Set[str]) -> str:
    """The label of a picture that has been found under these labels, each of one or more classes. Raises UsageError."""
    if NONE in labels and len(labels) > 1:
        raise UsageError(f"{name!r} shows {NONE!r} and {max(labels - {NONE})!r}; accepted: classes, or {NONE!r} alone")
    return label_of({one for label in labels for one in classes_in(label)})


def _stored(pixels: Pixels) -> bytes:
    """A frame as the content of a JPEG file: thousands of them fit the memory of a small machine."""
    image, stream = Image.fromarray(pixels), BytesIO()
    image.thumbnail((MAX_SIDE, MAX_SIDE), reducing_gap=2.0)
    image.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def check_sources(sources: Sequence[Path], labels: Path | None) -> None:
    """Raises UsageError for a source that is missing. Reads nothing."""
    if labels is not None and (len(sources) != 1 or not sources[0].is_dir()):
        raise UsageError(f"--labels {str(labels)!r} needs one SOURCE, the folder of its pictures")
    for source in sources:
        if not source.exists():
            raise UsageError(
                f"source {str(source)!r} does not exist; accepted: class folders, a CSV file, a labelled clip or "
                "recording"
            )


def of_source(source: Path, labels: Path | None, several: bool) -> list[LabelledPicture]:
    """The labelled pictures of a source: class folders, a CSV file, a labelled clip or recording. `labels`: a CSV file
    about the pictures in the folder `source`. Raises UsageError."""
    if labels is not None:
        return [*_of_csv(labels, source)]
    if is_recording(source):
        return [*_of_recording(source, several)]
    if source.is_dir():
        return _of_folder(source, several)
    if source.suffix.lower() == ".csv":
        return [*_of_csv(source, source.parent)]
    return [*_of_clip(source, several)]


def _of_folder(folder: Path, several: bool) -> list[LabelledPicture]:
    """Class folders, and labelled clips, in a folder."""
    found = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        paths = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not paths:
            raise UsageError(f"class folder {str(place)!r} holds no pictures; accepted: {', '.join(SUFFIXES)}")
        for path in paths:
            inner = path.relative_to(place).parent.as_posix()
            found.append(LabelledPicture(str(path), place.name, f"{inner}/{path.stem.partition('_')[0]}", path))
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _VIDEO_SUFFIXES and labels_beside(path).is_file():
            found += _of_clip(path, several)
    if not found:
        raise UsageError(
            f"folder {str(folder)!r} holds no class folders; accepted: one folder a class with its pictures, --labels "
            "with a CSV file (file,label), or clips with CLIP.labels.csv beside them"
        )
    return found


def _rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Place for messages, and values by column, of each line of a CSV file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"labels {str(path)!r} cannot be read: {error}") from None
    if missing := [column for column in needed if column not in columns]:
        raise UsageError(
            f"labels {str(path)!r} lacks the column {missing[0]!r}; found: {', '.join(columns) or 'none'}; accepted: "
            f"columns {', '.join(needed)}"
        )
    for line, row in enumerate(rows, 2):
        yield f"labels {str(path)!r}, line {line}", {key: (row[key] or "").strip() for key in columns if key in row}


def _of_csv(path: Path, folder: Path) -> Iterator[LabelledPicture]:
    for where, row in _rows(path, ("file", "label")):
        picture = folder / row["file"]
        if not picture.is_file():
            raise UsageError(f"{where}: {str(picture)!r} does not exist")
        if not row["label"]:
            raise UsageError(f"{where}: the label is empty; accepted: a class name")
        group = row.get("group") or f"{picture.parent}/{picture.stem.partition('_')[0]}"
        yield LabelledPicture(str(picture), row["label"], group, picture)


@dataclass(frozen=True, slots=True)
class Interval:
    """A part of a clip that shows one class."""

    start_s: float
    end_s: float
    label: str


def read_intervals(path: Path) -> list[Interval]:
    """The lines of CLIP.labels.csv, by time. Raises UsageError."""
    intervals = []
    for where, row in _rows(path, ("start_s", "end_s", "label")):
        try:
            start_s, end_s = float(row["start_s"]), float(row["end_s"])
        except ValueError:
            raise UsageError(f"{where}: {row['start_s']!r} to {row['end_s']!r}; accepted: seconds as numbers") from None
        if not 0 <= start_s < end_s < float("inf"):
            raise UsageError(f"{where}: {start_s:g} to {end_s:g}; accepted: an end after the start, from 0 on")
        if not row["label"]:
            raise UsageError(f"{where}: the label is empty; accepted: a class name")
        intervals.append(Interval(start_s, end_s, row["label"]))
    if not intervals:
        raise UsageError(f"labels {str(path)!r} holds no interval; accepted: lines of start_s,end_s,label")
    return sorted(intervals, key=lambda interval: interval.start_s)


def _of_clip(clip: Path, several: bool) -> Iterator[LabelledPicture]:
    """Frames of the labelled intervals of a clip."""
    yield from of_intervals(clip, _intervals_beside(clip, labels_beside(clip)), several)


def labels_beside(clip: Path) -> Path:
    """The labels file of a clip: CLIP.labels.csv."""
    return clip.with_suffix(".labels.csv")


def of_intervals(clip: Path, intervals: Sequence[Interval], several: bool = False) -> Iterator[LabelledPicture]:
    """Frames of a clip in these intervals, evenly spread; each interval is a group."""
    video = VideoFile(clip)
    try:
        yield from _in_intervals(str(clip), intervals, ((frame.stream_s, frame.pixels) for frame in video), several)
    finally:
        video.close()


def _of_recording(folder: Path, several: bool) -> Iterator[LabelledPicture]:
    """Frames of each camera of a recording, in the labelled intervals of FOLDER.labels.csv beside it."""
    intervals = _intervals_beside(folder, folder.with_name(f"{folder.name}.labels.csv"))
    recording = RecordingReader(folder)
    for camera, rows in recording.cameras().items():
        with closing(recording.pictures(camera)) as pictures:
            timed = ((row["stream_s"], pixels) for row, pixels in zip(rows, pictures, strict=False))
            yield from _in_intervals(f"{folder}:{camera}", intervals, timed, several)


def _intervals_beside(source: Path, path: Path) -> list[Interval]:
    if not path.is_file():
        raise UsageError(
            f"source {str(source)!r} has no labels; accepted: {path.name!r} beside it, with lines of "
            "start_s,end_s,label"
        )
    return read_intervals(path)


def _in_intervals(
    source: str, intervals: Sequence[Interval], frames: Iterable[tuple[float, Pixels]], several: bool
) -> Iterator[LabelledPicture]:
    """Frames (time in s, pixels) from inside the intervals, evenly spread. Where a frame may show several classes, it
    shows those of all intervals around it. Raises UsageError if the source ends before an interval begins."""
    wanted = [(time_s, interval) for interval in intervals for time_s in _times(interval)]
    wanted.sort(key=lambda each: each[0])
    end_s = 0.0
    for end_s, pixels in frames:
        while wanted and end_s >= wanted[0][0]:
            _, interval = wanted.pop(0)
            if end_s <= interval.end_s:
                group = f"{source}@{interval.start_s:g}"
                name, label = f"{source} at {end_s:.2f} s", interval.label
                if several:
                    label = one_label(name, {each.label for each in intervals if each.start_s <= end_s <= each.end_s})
                yield LabelledPicture(name, label, group, _stored(pixels), end_s - interval.start_s)
        if not wanted:
            return
    if late := [interval for _, interval in wanted if interval.start_s > end_s]:
        raise UsageError(
            f"labels of {source!r}: {late[0].start_s:g} to {late[0].end_s:g} s, but it ends at {end_s:.2f} s; "
            "accepted: intervals within it"
        )


def _times(interval: Interval) -> list[float]:
    length = interval.end_s - interval.start_s
    count = max(1, min(_FRAMES_PER_INTERVAL, int(length * _FRAMES_PER_S)))
    return [interval.start_s + (number + 0.5) * length / count for number in range(count)]
