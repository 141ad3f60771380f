"""The pictures of an evaluation, with the truth where it is known."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from timm.data import ImageNetInfo

from sagelink.lab import FEWEST
from sagelink.pipeline.config import CameraConfig
from sagelink.pipeline.errors import UsageError, suggest
from sagelink.pipeline.types import Pixels
from sagelink.stages.sources.images import SUFFIXES, read_image
from sagelink.stages.sources.open import open_source

_IMAGENET = 1000


@dataclass(slots=True)
class Pictures:
    """Paths with class ids, read one by one; those that cannot be read are skipped, and listed."""

    paths: Sequence[Path]
    truth: Sequence[int] | None
    unreadable: list[str] = field(default_factory=list)  # filled as they are read

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[Pixels, int | None]]:
        self.unreadable.clear()
        for index, path in enumerate(self.paths):
            try:
                pixels = read_image(path)
            except OSError as error:
                self.unreadable.append(f"{path}: {error}")
                continue
            yield pixels, None if self.truth is None else self.truth[index]

    def part(self, rows: slice, limit: int | None) -> Pictures:
        """Some of them, in the same order. Raises UsageError when fewer than FEWEST are left."""
        paths = self.paths[rows][:limit]
        if len(paths) < FEWEST:
            raise UsageError(f"{len(paths)} images to measure; accepted: {FEWEST} or more")
        return Pictures(paths, None if self.truth is None else self.truth[rows][:limit])


def find_pictures(folder: Path, labels: Path | None, classes: Sequence[str]) -> Pictures:
    """Images of a folder with the truth of a CSV file (columns file and label), or of folders named after classes.

    A class folder bears a name of `classes`, its number, or an ImageNet synset such as n01440764. Images that lie in
    the folder itself have no truth. Raises UsageError.
    """
    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is not a folder of images")
    if labels is not None:
        return _of_table(folder, labels, classes)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise UsageError(f"folder {str(folder)!r} holds no images; accepted: {', '.join(SUFFIXES)}")
    folders = {path.relative_to(folder).parts[0] for path in paths if path.parent != folder}
    if not folders:
        return Pictures(paths, None)
    if stray := [path.name for path in paths if path.parent == folder]:
        raise UsageError(
            f"folder {str(folder)!r} holds class folders such as {min(folders)!r} and images beside them such as "
            f"{stray[0]!r}; accepted: one or the other"
        )
    ids = _class_ids(classes)
    for name in sorted(folders):
        if name not in ids:
            raise UsageError(
                f"folder {name!r} in {str(folder)!r} names none of the model's {len(classes)} classes"
                f"{suggest(name, classes)}; accepted: class names, numbers 0 to {len(classes) - 1}, ImageNet synsets"
            )
    return Pictures(paths, [ids[path.relative_to(folder).parts[0]] for path in paths])


def pictures_of(
    camera: CameraConfig, labels: Path | None, classes: Sequence[str], most: int
) -> Iterator[tuple[Pixels, int | None]]:
    """At most so many frames of a source, spread over it where its length is known. Raises SagelinkError."""
    folder = Path(camera.source)
    if labels is not None:
        found = find_pictures(folder, labels, classes)
        yield from found.part(slice(0, None, max(1, len(found) // most)), most)
        return
    source = open_source(camera)
    try:
        stride = max(1, (source.length or 0) // most)
        known = source.labels is not None and tuple(source.labels) == tuple(classes)
        for shot in islice(source, 0, stride * most, stride):
            yield shot.pixels, shot.truth if known else None
    finally:
        source.close()


def _class_ids(classes: Sequence[str]) -> dict[str, int]:
    ids = {str(number): number for number in range(len(classes))}
    if len(classes) == _IMAGENET:
        info = ImageNetInfo()
        ids |= {info.index_to_label_name(number): number for number in range(_IMAGENET)}
    return ids | {name: number for number, name in enumerate(classes)}


def _of_table(folder: Path, labels: Path, classes: Sequence[str]) -> Pictures:
    try:
        with labels.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"labels {str(labels)!r} cannot be read: {error}") from None
    if missing := {"file", "label"} - set(columns):
        raise UsageError(
            f"labels {str(labels)!r} lacks the column {min(missing)!r}; found: {', '.join(columns) or 'none'}; "
            "accepted: a CSV file with the columns file and label"
        )
    ids = _class_ids(classes)
    paths, truth = [], []
    for line, row in enumerate(rows, 2):
        path, label = folder / (row["file"] or ""), (row["label"] or "").strip()
        where = f"labels {str(labels)!r}, line {line}"
        if not path.is_file():
            absent = sum(not (folder / (other["file"] or "")).is_file() for other in rows)
            raise UsageError(f"{where}: {str(path)!r} does not exist ({absent} of {len(rows)} files are missing)")
        if label not in ids:
            raise UsageError(
                f"{where}: label {label!r} is no class of the model; accepted: 0 to {len(classes) - 1}, or a class name"
            )
        paths.append(path)
        truth.append(ids[label])
    return Pictures(paths, truth)
