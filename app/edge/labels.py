"""The labels of a run, for each head: the folder, the classes in use, and the function that teaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sagelink.app.edge.head_teacher import HeadInUse, LabelledHeadTeacher
from sagelink.app.edge.heads import HeadsOfRun
from sagelink.models.heads.combinations import NONE
from sagelink.models.heads.head import Head
from sagelink.monitor.labelling.desk import LabelDesk
from sagelink.monitor.labelling.desks import LabelDesks
from sagelink.monitor.labelling.folder import LabelFolder
from sagelink.monitor.labelling.recent_frames import RecentFrames
from sagelink.monitor.labelling.view import FIRST_HEAD, LabelView
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import SagelinkError

_NO_FOLDER = "no folder for labelled pictures: set labels.folder, or give the run a folder with --out"


def run_labels(config: Config, heads: HeadsOfRun, frames: RecentFrames) -> LabelDesks:
    """Labels of a live run. A folder that cannot be written closes the labels, with the reason; the run goes on."""
    path = config.labels.folder or (config.output.out / "labels" if config.output.out else None)
    session = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")

    def desk(name: str, in_use: HeadInUse, known: Callable[[], Sequence[Head | None]]) -> LabelDesk:
        view, classes = frames.view(name), lambda: known_classes(known())
        if path is None:
            return LabelDesk(view, None, classes, None, closed=_NO_FOLDER)
        try:
            return open_desk(config, folder_of(path, name), session, view, name, classes, in_use)
        except SagelinkError as error:
            return LabelDesk(view, None, classes, None, closed=str(error))

    def further_desk(name: str) -> LabelDesk:
        further = heads.further
        in_use = HeadInUse(
            partial(further.head, name),
            partial(heads.swap_further, name),
            partial(heads.restore_further, name),
            partial(further.can_restore, name),
        )
        return desk(name, in_use, lambda: [further.head(name)])

    first = HeadInUse(
        partial(heads.head, heads.cameras[0]),
        partial(heads.swap, None),
        partial(heads.restore, None),
        heads.can_restore,
    )
    first_desk = desk(FIRST_HEAD, first, lambda: [heads.head(camera) for camera in heads.cameras])
    return LabelDesks(first_desk, {name: further_desk(name) for name in heads.further.names})


def open_desk(
    config: Config,
    folder: Path,
    session: str,
    view: LabelView,
    name: str,
    classes: Callable[[], Sequence[str]],
    in_use: HeadInUse,
) -> LabelDesk:
    """The desk of a head. `classes`: those in use. Raises SagelinkError for a folder that cannot be written."""
    labels = LabelFolder(folder, session)
    file = config.heads[name] if name else config.head
    return LabelDesk(view, labels, classes, LabelledHeadTeacher(config, labels, in_use, written_ns(file), name))


def folder_of(folder: Path, head: str) -> Path:
    """The folder for the labels of a head, beside that of the first one."""
    return folder.with_name(f"{folder.name}-{head}") if head else folder


def known_classes(heads: Sequence[Head | None]) -> list[str]:
    """The labels of these heads, each once."""
    return [*dict.fromkeys(name for head in heads if head is not None for name in labels_of(head))]


def labels_of(head: Head) -> list[str]:
    """The labels that the page offers: the classes. Combinations of them can be typed."""
    return [*head.card.classes, *([] if head.card.combinations is None else [NONE])]


def written_ns(head: Path | None) -> int:
    """When a head file was written, since 1970; now without one."""
    return time.time_ns() if head is None else head.stat().st_mtime_ns
