"""What the dashboard of a run needs for labels: the folder, the classes in use, and the function that teaches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sagelink.app.head_teacher import HeadsInUse, LabelledHeadTeacher
from sagelink.models.combinations import NONE
from sagelink.models.head import Head
from sagelink.monitor.label_desk import LabelDesk
from sagelink.monitor.label_folder import LabelFolder
from sagelink.monitor.recent_frames import RecentFrames
from sagelink.pipeline.config import Config
from sagelink.pipeline.errors import SagelinkError

_NO_FOLDER = "no folder for labelled pictures: set labels.folder, or give the run a folder with --out"


def run_labels(config: Config, heads: HeadsInUse, frames: RecentFrames) -> LabelDesk:
    """Labels of a live run. A folder that cannot be written closes the labels, with the reason; the run goes on."""
    path = config.labels.folder or (config.output.out / "labels" if config.output.out else None)
    session = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")

    def known() -> Sequence[str]:
        return known_classes(heads)

    if path is None:
        return LabelDesk(frames, None, known, None, closed=_NO_FOLDER)
    try:
        folder = LabelFolder(path, session)
    except SagelinkError as error:
        return LabelDesk(frames, None, known, None, closed=str(error))
    teacher = LabelledHeadTeacher(config, folder, heads, written_ns(config.head))
    return LabelDesk(frames, folder, known, teacher, further=[*config.heads])


def known_classes(heads: HeadsInUse) -> list[str]:
    """The labels of all heads in use, each once."""
    found = [heads.head(camera) for camera in heads.cameras]
    return [*dict.fromkeys(name for head in found if head is not None for name in labels_of(head))]


def labels_of(head: Head) -> list[str]:
    """The labels that the page offers: the classes. Combinations of them can be typed."""
    return [*head.card.classes, *([] if head.card.combinations is None else [NONE])]


def written_ns(head: Path | None) -> int:
    """When a head file was written, since 1970; now without one."""
    return time.time_ns() if head is None else head.stat().st_mtime_ns
