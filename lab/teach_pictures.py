"""Finds the labelled pictures for `sagelink teach`: class folders, CSV files and labelled clips in, `Pictures` out.

A group is a sequence or a place: pictures of one group resemble each other, so cross-validation never separates them. A
group is what the CSV file says, the interval of a clip, or what stands before the first `_` of a file's name. Near
duplicates join their groups.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagelink.lab.progress_bar import ShowProgress
from sagelink.lab.teach_groups import groups_of
from sagelink.models.combinations import (
    NONE,
    Combination,
    answers_of,
    classes_in,
    fault_of_class,
    label_of,
    membership,
    names_of,
)
from sagelink.models.head import MAX_CLASSES, fault_of_names
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.output_files import is_recording
from sagelink.pipeline.types import Pixels
from sagelink.stages.recording_reader import RecordingReader
from sagelink.stages.sources.image_file import SUFFIXES, read_image
from sagelink.stages.sources.video import VideoFile
from sagelink.stages.zoom import thumbnail_of

MIN_PICTURES = 3  # of a class
_VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".ts")
_MAX_PICTURES = 20_000
_MAX_SIDE = 1280  # pixels: larger pictures are scaled down; both models see far fewer
_JPEG_QUALITY = 95  # of frames of a video
_FRAMES_PER_S, _FRAMES_PER_INTERVAL = 2.0, 12  # taken from a clip: neighbouring frames add little


@dataclass(frozen=True, slots=True)
class Found:
    """A labelled picture before it is read."""

    name: str
    label: str
    group: str
    where: Path | bytes  # of an image file, or its content
    at_s: float | None = None  # time in its sequence; None: not known


@dataclass(slots=True)
class Pictures:
    """Labelled pictures. The pixels are read one at a time, by index."""

    names: tuple[str, ...]  # of the classes
    answers: tuple[Combination, ...] | None  # of a multi-label head; None: each picture shows one class
    found: list[Found]
    ids: np.ndarray  # (n,) answers: class ids, or combinations
    groups: np.ndarray  # (n,) group ids
    digests: list[str]  # of the pixels
    notes: list[str] = field(default_factory=list)  # for the user: what was left out, and why
    _last: tuple[int, Pixels] | None = None

    def __len__(self) -> int:
        return len(self.found)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the answers."""
        return self.names if self.answers is None else names_of(self.names, self.answers)

    def shows(self) -> NDArray[np.bool_]:
        """(n, C): the classes that each picture shows."""
        classes = len(self.names)
        if self.answers is None:
            return np.asarray(self.ids[:, None] == np.arange(classes))
        return np.asarray(membership(classes, self.answers)[self.ids] > 0)

    def played(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """(n,) stated sequence of each picture, and (n,) its time in it in s, NaN where it is not known."""
        sequence = np.unique([each.group for each in self.found], return_inverse=True)[1]
        times = [np.nan if each.at_s is None else each.at_s for each in self.found]
        return sequence.astype(np.intp), np.array(times, np.float64)

    def read(self, index: int) -> Pixels:
        """The pixels; the last picture is kept. Raises SagelinkError for a file that can no longer be read."""
        if self._last is None or self._last[0] != index:
            try:
                self._last = index, _read(self.found[index].where)
            except OSError as error:
                raise SagelinkError(f"{_fault(self.found[index], error)}; it was readable before") from None
        return self._last[1]


def find_pictures_to_teach(
    sources: Sequence[Path], labels: Path | None, progress: ShowProgress = lambda *_: None, several: bool = False
) -> Pictures:
    """`several`: a picture may show several classes, or none. Raises UsageError when a source has no labels, or the
    classes cannot be taught."""
    check_sources(sources, labels)
    found = [each for source in sources for each in _of_source(source, labels, several)]
    return check_pictures(found, progress, several)


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


def check_pictures(found: Sequence[Found], progress: ShowProgress = lambda *_: None, several: bool = False) -> Pictures:
    """Reads every picture once, drops what cannot be used, and finds the groups. Raises UsageError."""
    names = sorted({name for each in found for name in (classes_in(each.label) if several else {each.label})})
    if fault := fault_of_names(names) or (next(filter(None, map(fault_of_class, names)), None) if several else None):
        raise UsageError(fault)
    if len(names) > MAX_CLASSES:
        raise UsageError(f"{len(names)} classes; accepted: 2 to {MAX_CLASSES}")
    if len(found) > _MAX_PICTURES:
        raise UsageError(f"{len(found)} pictures; accepted: up to {_MAX_PICTURES}, because near ones add little")
    readable, digests, thumbnails, notes = _read_all(found, progress, several)
    labels = [each.label for each in readable]
    shown = [classes_in(label) if several else frozenset([label]) for label in labels]
    _check_counts(names, shown, several, notes)
    present = sorted({*labels})
    groups = groups_of(
        [each.group for each in readable],
        np.array(thumbnails),
        np.array([present.index(label) for label in labels]),
        present,
        notes,
    )
    chosen = [tuple(sorted(names.index(name) for name in each)) for each in shown]
    answers = answers_of(len(names), chosen) if several else tuple((number,) for number in range(len(names)))
    if len(answers) > MAX_CLASSES:
        raise UsageError(f"{len(answers)} combinations of classes; accepted: up to {MAX_CLASSES}")
    ids = np.array([answers.index(each) for each in chosen])
    return Pictures(tuple(names), answers if several else None, readable, ids, groups, digests, notes)


def _read_all(
    found: Sequence[Found], progress: ShowProgress, several: bool
) -> tuple[list[Found], list[str], list[NDArray[np.float32]], list[str]]:
    """Each picture once, its digest and its thumbnail; and notes on what was left out."""
    readable: dict[str, Found] = {}  # by digest
    thumbnails: list[NDArray[np.float32]] = []
    unreadable, repeated = [], 0
    for number, each in enumerate(found, 1):
        progress("reading pictures", number, len(found))
        try:
            pixels = _read(each.where)
        except OSError as error:
            unreadable.append(_fault(each, error))
            continue
        digest = hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).data).hexdigest()
        known = readable.get(digest)
        if known is None:
            readable[digest] = each
            thumbnails.append(thumbnail_of(pixels).ravel())
        elif known.label == each.label:
            repeated += 1
        elif several:
            readable[digest] = replace(known, label=_together(known.name, {known.label, each.label}))
        else:
            raise UsageError(
                f"{known.name!r} in class {known.label!r} and {each.name!r} in class {each.label!r} are the same "
                "picture; accepted: each picture in one class, or --several"
            )
    notes = []
    if unreadable:
        notes.append(f"{len(unreadable)} pictures cannot be read and are left out, first: {unreadable[0]}")
    if repeated:
        notes.append(f"{repeated} pictures are exact copies of others of their class and are left out")
    return [*readable.values()], [*readable], thumbnails, notes


def _together(name: str, labels: Set[str]) -> str:
    """The label of a picture that has been found under these."""
    if NONE in labels and len(labels) > 1:
        raise UsageError(f"{name!r} shows {NONE!r} and {max(labels - {NONE})!r}; accepted: classes, or {NONE!r} alone")
    return label_of({one for label in labels for one in classes_in(label)})


def _check_counts(names: Sequence[str], shown: Sequence[Set[str]], several: bool, notes: Sequence[str]) -> None:
    """`shown`: the classes that each picture shows."""
    if not names or (len(names) < 2 and not several):
        found = f"only class {names[0]!r}" if names else "no labelled picture"
        raise UsageError(
            f"{found}: a head tells at least two classes apart. Add pictures of what else the camera sees, such as a "
            "class 'empty' or 'other'"
        )
    counts = Counter(name for each in shown for name in each)
    if few := [name for name in names if counts[name] < MIN_PICTURES]:
        missing = "".join(f"; {note}" for note in notes if "cannot be read" in note)
        listed = ", ".join(f"{name!r} ({counts[name]})" for name in few[:5])
        raise UsageError(f"too few pictures in {listed}; accepted: {MIN_PICTURES} or more a class{missing}")
    if several and (everywhere := [name for name in names if len(shown) - counts[name] < MIN_PICTURES]):
        raise UsageError(
            f"too few pictures without {everywhere[0]!r}; accepted: {MIN_PICTURES} or more, such as with the label "
            f"{NONE!r}"
        )


def _read(where: Path | bytes) -> Pixels:
    return read_image(BytesIO(where) if isinstance(where, bytes) else where, _MAX_SIDE)


def _fault(found: Found, error: OSError) -> str:
    return f"picture {found.name!r} cannot be read: {error.strerror or 'it is damaged or no picture'}"


def _stored(pixels: Pixels) -> bytes:
    """A frame as the content of a JPEG file: thousands of them fit the memory of a small machine."""
    image, stream = Image.fromarray(pixels), BytesIO()
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), reducing_gap=2.0)
    image.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def _of_source(source: Path, labels: Path | None, several: bool) -> list[Found]:
    if labels is not None:
        return [*_of_csv(labels, source)]
    if is_recording(source):
        return [*_of_recording(source, several)]
    if source.is_dir():
        return _of_folder(source, several)
    if source.suffix.lower() == ".csv":
        return [*_of_csv(source, source.parent)]
    return [*_of_clip(source, several)]


def _of_folder(folder: Path, several: bool) -> list[Found]:
    """Class folders, and labelled clips, in a folder."""
    found = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        paths = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not paths:
            raise UsageError(f"class folder {str(place)!r} holds no pictures; accepted: {', '.join(SUFFIXES)}")
        for path in paths:
            inner = path.relative_to(place).parent.as_posix()
            found.append(Found(str(path), place.name, f"{inner}/{path.stem.partition('_')[0]}", path))
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


def _of_csv(path: Path, folder: Path) -> Iterator[Found]:
    for where, row in _rows(path, ("file", "label")):
        picture = folder / row["file"]
        if not picture.is_file():
            raise UsageError(f"{where}: {str(picture)!r} does not exist")
        if not row["label"]:
            raise UsageError(f"{where}: the label is empty; accepted: a class name")
        group = row.get("group") or f"{picture.parent}/{picture.stem.partition('_')[0]}"
        yield Found(str(picture), row["label"], group, picture)


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


def _of_clip(clip: Path, several: bool) -> Iterator[Found]:
    """Frames of the labelled intervals of a clip."""
    yield from of_intervals(clip, _intervals_beside(clip, labels_beside(clip)), several)


def labels_beside(clip: Path) -> Path:
    """The labels file of a clip: CLIP.labels.csv."""
    return clip.with_suffix(".labels.csv")


def of_intervals(clip: Path, intervals: Sequence[Interval], several: bool = False) -> Iterator[Found]:
    """Frames of a clip in these intervals, evenly spread; each interval is a group."""
    video = VideoFile(clip)
    try:
        yield from _in_intervals(str(clip), intervals, ((frame.stream_s, frame.pixels) for frame in video), several)
    finally:
        video.close()


def _of_recording(folder: Path, several: bool) -> Iterator[Found]:
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
) -> Iterator[Found]:
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
                    label = _together(name, {each.label for each in intervals if each.start_s <= end_s <= each.end_s})
                yield Found(name, label, group, _stored(pixels), end_s - interval.start_s)
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
