"""Reads and checks the labelled pictures for `sagelink teach`: `LabelledPicture` in, `Pictures` out.

Pictures of one group resemble each other, so cross-validation never separates them. Near duplicates join their groups.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.progress_bar import ShowProgress
from sagelink.lab.teach.groups import groups_of
from sagelink.lab.teach.sources import MAX_SIDE, LabelledPicture, check_sources, of_source, one_label
from sagelink.models.heads.combinations import (
    NONE,
    Combination,
    answers_of,
    classes_in,
    fault_of_class,
    membership,
    names_of,
)
from sagelink.models.heads.head import MAX_CLASSES, fault_of_names
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.types import Pixels
from sagelink.stages.sources.image_file import read_image
from sagelink.stages.zoom import thumbnail_of

MIN_PICTURES = 3  # of a class
_MAX_PICTURES = 20_000


@dataclass(slots=True)
class Pictures:
    """Labelled pictures. The pixels are read one at a time, by index."""

    names: tuple[str, ...]  # of the classes
    answers: tuple[Combination, ...] | None  # of a multi-label head; None: each picture shows one class
    found: list[LabelledPicture]
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
    found = [each for source in sources for each in of_source(source, labels, several)]
    return check_pictures(found, progress, several)


def check_pictures(
    found: Sequence[LabelledPicture], progress: ShowProgress = lambda *_: None, several: bool = False
) -> Pictures:
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
    found: Sequence[LabelledPicture], progress: ShowProgress, several: bool
) -> tuple[list[LabelledPicture], list[str], list[NDArray[np.float32]], list[str]]:
    """Each picture once, its digest and its thumbnail; and notes on what was left out."""
    readable: dict[str, LabelledPicture] = {}  # by digest
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
            readable[digest] = replace(known, label=one_label(known.name, {known.label, each.label}))
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
    return read_image(BytesIO(where) if isinstance(where, bytes) else where, MAX_SIDE)


def _fault(found: LabelledPicture, error: OSError) -> str:
    return f"picture {found.name!r} cannot be read: {error.strerror or 'it is damaged or no picture'}"
