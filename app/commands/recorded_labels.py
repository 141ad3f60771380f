"""The labels of recorded frames, for each head: the folder, the classes in use, and the function that teaches."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sagelink.app.commands.recorded_frames import RecordedFrames
from sagelink.app.edge.head_teacher import HeadInUse
from sagelink.app.edge.labels import folder_of, known_classes, open_desk
from sagelink.monitor.labelling.desk import LabelDesk
from sagelink.monitor.labelling.desks import LabelDesks
from sagelink.monitor.labelling.view import FIRST_HEAD
from sagelink.pipeline.config.schema import Config


def recorded_labels(config: Config, folder: Path, session: str, frames: RecordedFrames) -> LabelDesks:
    """Raises SagelinkError for a folder that cannot be written."""

    def desk(name: str, in_use: HeadInUse) -> LabelDesk:
        place, view = folder_of(folder, name), frames.view(name)
        return open_desk(config, place, session, view, name, lambda: known_classes([in_use.head()]), in_use)

    def further_desk(name: str) -> LabelDesk:
        in_use = HeadInUse(
            partial(frames.further.head, name),
            partial(frames.swap_further, name),
            partial(frames.restore_further, name),
            partial(frames.further.can_restore, name),
        )
        return desk(name, in_use)

    first = desk(FIRST_HEAD, HeadInUse(frames.head, frames.swap, frames.restore, frames.can_restore))
    return LabelDesks(first, {name: further_desk(name) for name in frames.further.names})
