"""Real videos with labelled intervals: a clip with a true class per frame, and a head taught on the part before it.

In: a video file and the intervals of its labels. Out: a `Clip` from a time on, and a `Head` from the pictures before
that time. Frames between intervals belong to the clip, because a camera sees them too, but they are not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sagelink.lab.progress_bar import ShowProgress
from sagelink.lab.teach.feature_cache import FeatureCache
from sagelink.lab.teach.features import FeatureMaker
from sagelink.lab.teach.pictures import check_pictures
from sagelink.lab.teach.sources import Interval, of_intervals
from sagelink.lab.teach.teaching import DEFAULT_SIZES, teach
from sagelink.lab.video.clips import Clip, sampled_frames
from sagelink.lab.video.scored_clips import UNTAUGHT
from sagelink.models.heads.head import Head
from sagelink.models.pair import Pair
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.stages.sources.contract import SourceFrame
from sagelink.stages.sources.video import VideoFile


def split_time_s(path: Path, share: float) -> float:
    """The time at which this share of the video has passed. Raises UsageError if the file does not state its length."""
    video = VideoFile(path)
    try:
        length_s = video.length_s
    finally:
        video.close()
    if length_s is None:
        raise UsageError(f"video {str(path)!r} does not state its length; accepted: a time, such as --teach-until 20s")
    return share * length_s


def before(intervals: Sequence[Interval], end_s: float) -> list[Interval]:
    """The intervals, or their parts, before a time."""
    return [replace(each, end_s=min(each.end_s, end_s)) for each in intervals if each.start_s < end_s]


def labelled_clip(
    path: Path,
    name: str,
    intervals: Sequence[Interval],
    classes: Sequence[str],
    fps: float,
    from_s: float,
    max_frames: int,
) -> Clip:
    """The frames of a video from a time on, at most `max_frames`. Raises UsageError if none of them has a label.

    A label that is none of the `classes` gets the true class UNTAUGHT.
    """
    ids = {label: number for number, label in enumerate(classes)}
    frames = []
    for frame in sampled_frames(path, fps, from_s, max_frames):
        label = _label_at(intervals, frame.stream_s)
        truth = None if label is None else ids.get(label, UNTAUGHT)
        frames.append(SourceFrame(frame.pixels, frame.stream_s, truth=truth))
    if all(frame.truth is None for frame in frames):
        raise UsageError(
            f"video {str(path)!r} has {len(frames)} frames from {from_s:.1f} s on, and no label for any of them; "
            "accepted: labelled intervals in the part that is tested"
        )
    return Clip(name, path.name, frames)


def teach_on_clip(
    path: Path,
    intervals: Sequence[Interval],
    pair: Pair,
    config: Config,
    cache: Path,
    seed: int,
    progress: ShowProgress,
) -> Head:
    """A head of the classes of these intervals, as `sagelink teach` makes it. Raises UsageError.

    `pair`: the backbones. `cache`: folder of the features.
    """
    pictures = check_pictures([*of_intervals(path, intervals)])
    maker = FeatureMaker(pair, config, FeatureCache(cache))
    return teach(pictures, pair, maker, DEFAULT_SIZES, seed, progress).head


def _label_at(intervals: Sequence[Interval], time_s: float) -> str | None:
    return next((each.label for each in intervals if each.start_s <= time_s < each.end_s), None)
