"""Images to evaluate, with their true class ids if known.

In: a folder of images with a CSV file, a folder of class folders, or a frame source. Out: pixels and class id each.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from timm.data import ImageNetInfo

from sagelink.lab import MIN_IMAGES
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.errors import UsageError, suggest
from sagelink.pipeline.types import Pixels
from sagelink.stages.sources.image_file import SUFFIXES, find_images, read_image
from sagelink.stages.sources.open import open_source

_IMAGENET = 1000


@dataclass(slots=True)
class ImageSet:
    """Image paths with class ids. Iteration reads one image at a time; unreadable images are skipped and listed."""

    paths: Sequence[Path]
    truth: Sequence[int] | None
    unreadable: list[str] = field(default_factory=list)  # path and error, filled during iteration

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

    def subset(self, rows: slice, limit: int | None) -> ImageSet:
        """The images of a slice, at most `limit`. Raises UsageError if fewer than MIN_IMAGES remain."""
        paths = self.paths[rows][:limit]
        if len(paths) < MIN_IMAGES:
            raise UsageError(f"{len(paths)} images to measure; accepted: {MIN_IMAGES} or more")
        return ImageSet(paths, None if self.truth is None else self.truth[rows][:limit])


def find_pictures(folder: Path, labels: Path | None, classes: Sequence[str]) -> ImageSet:
    """Images of a folder, with labels from a CSV file (columns `file` and `label`) or from class folders.

    A class folder is named after a class, a class number, or an ImageNet synset such as n01440764. Images directly in
    the folder have no labels. Raises UsageError.
    """
    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is not a folder of images")
    if labels is not None:
        return _from_csv(folder, labels, classes)
    paths = find_images(folder)
    if not paths:
        raise UsageError(f"folder {str(folder)!r} holds no images; accepted: {', '.join(SUFFIXES)}")
    folders = {path.relative_to(folder).parts[0] for path in paths if path.parent != folder}
    if not folders:
        return ImageSet(paths, None)
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
    return ImageSet(paths, [ids[path.relative_to(folder).parts[0]] for path in paths])


def pictures_of(
    camera: CameraConfig, labels: Path | None, classes: Sequence[str], limit: int
) -> Iterator[tuple[Pixels, int | None]]:
    """At most `limit` frames of a source with their class ids; spread evenly over a source of known length.

    Raises SagelinkError.
    """
    folder = Path(camera.source)
    if labels is not None:
        found = find_pictures(folder, labels, classes)
        yield from found.subset(slice(0, None, max(1, len(found) // limit)), limit)
        return
    source = open_source(camera)
    try:
        stride = max(1, (source.length or 0) // limit)
        same_classes = source.labels is not None and tuple(source.labels) == tuple(classes)
        for frame in islice(source, 0, stride * limit, stride):
            yield frame.pixels, frame.truth if same_classes else None
    finally:
        source.close()


def _class_ids(classes: Sequence[str]) -> dict[str, int]:
    """Class id by every accepted label: number, name, and synset for models with the classes of ImageNet."""
    ids = {str(number): number for number in range(len(classes))}
    if len(classes) == _IMAGENET:
        info = ImageNetInfo()
        ids |= {info.index_to_label_name(number): number for number in range(_IMAGENET)}
    return ids | {name: number for number, name in enumerate(classes)}


def _from_csv(folder: Path, labels: Path, classes: Sequence[str]) -> ImageSet:
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
    return ImageSet(paths, truth)
