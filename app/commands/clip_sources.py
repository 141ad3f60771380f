"""The sources of `sagelink eval-video`: images to draw clips from, videos, or videos with labelled intervals.

In: the sources and options of the command. Out: `Footage`: a clip with the models and settings that play it.
Every source and labels file is checked before a model is loaded. Heavy imports stay inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sagelink.pipeline.errors import UsageError

if TYPE_CHECKING:
    from sagelink.lab.harness import Harness
    from sagelink.lab.progress_bar import ShowProgress
    from sagelink.lab.teach.sources import Interval
    from sagelink.lab.video.clips import Clip, PhotoCollection
    from sagelink.models.pair import Pair
    from sagelink.pipeline.config.schema import Config

_VIDEOS = (".avi", ".mkv", ".mov", ".mp4", ".webm")
_WORLD = "synthetic:"


@dataclass(frozen=True, slots=True)
class Footage:
    """A clip, the models that play it, and their settings."""

    clip: Clip
    harness: Harness
    settings: Config
    labelled_video: bool = False


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """How clips are made."""

    count: int  # of drawn clips; a video has at most `count` x `seconds`
    seconds: float  # of a drawn clip
    fps: float
    seed: int

    @property
    def max_frames(self) -> int:
        return max(1, round(self.count * self.seconds * self.fps))


@dataclass(frozen=True, slots=True)
class TeachUntil:
    """Where the part of a video ends on which its head is taught: a share of its length, or a time."""

    share: float | None
    time_s: float | None

    @classmethod
    def parse(cls, text: str) -> TeachUntil:
        """`55%` or `20s`. Raises UsageError."""
        from sagelink.pipeline.quantities import parse_duration

        try:
            if text.strip().endswith("%"):
                share = float(text.strip().removesuffix("%")) / 100
                if 0 < share < 1:
                    return cls(share, None)
            else:
                time_s = parse_duration(text)
                if time_s > 0:
                    return cls(None, time_s)
        except ValueError:
            pass
        raise UsageError(f"--teach-until {text!r}; accepted: a share of the video such as 55%, or a time such as 20s")

    def time_in(self, path: Path) -> float:
        """Seconds from the start of this video."""
        from sagelink.lab.video.labelled_clips import split_time_s

        return split_time_s(path, self.share) if self.share is not None else self.time_s or 0.0


def are_videos(sources: Sequence[str]) -> bool:
    return Path(sources[0]).suffix.lower() in _VIDEOS


@dataclass(frozen=True, slots=True)
class LabelledVideo:
    """A video file and the intervals of its labels."""

    path: Path
    name: str  # different from those of other videos
    intervals: list[Interval]
    from_s: float  # the tested part begins here
    teach: bool  # a head is taught on the part before


def find_labelled_videos(
    sources: Sequence[str], labels: Path | None, until: TeachUntil | None, has_head: bool
) -> list[LabelledVideo]:
    """Empty where the videos are to be scored by agreement: without any of labels, `until` and labels beside a head.

    Raises UsageError.
    """
    from sagelink.lab.teach.sources import labels_beside, read_intervals
    from sagelink.lab.video.labelled_clips import before

    if not are_videos(sources):
        if until is not None:
            raise UsageError("--teach-until goes with labelled videos; teach a head for images with `sagelink teach`")
        return []
    if until is not None and has_head:
        raise UsageError("--teach-until and --head: accepted: one of them; the first teaches a head for each video")
    if labels is not None and len(sources) > 1:
        raise UsageError("--labels goes with one video; accepted: CLIP.labels.csv beside each of several videos")
    paths = [Path(source) for source in sources]
    files = [labels or labels_beside(path) for path in paths]
    missing = [file for file in files if not file.is_file()]
    if until is None and labels is None and (not has_head or len(missing) == len(files)):
        return []
    if missing:
        raise UsageError(
            f"labels {str(missing[0])!r} do not exist; accepted: labels beside all videos, with lines of "
            "start_s,end_s,label"
        )
    videos: list[LabelledVideo] = []
    for path, file, name in zip(paths, files, _video_names(paths), strict=True):
        intervals = read_intervals(file)
        from_s = until.time_in(path) if until else 0.0
        if until and not before(intervals, from_s):
            raise UsageError(f"labels {str(file)!r} hold no interval before {from_s:.1f} s, where teaching ends")
        if all(each.end_s <= from_s for each in intervals):
            raise UsageError(f"labels {str(file)!r} hold no interval after {from_s:.1f} s, where the test begins")
        videos.append(LabelledVideo(path, name, intervals, from_s, until is not None))
    return videos


def _video_names(paths: Sequence[Path]) -> list[str]:
    """A name for each video, different from those of the others."""
    stems = [path.stem for path in paths]
    earlier = [stems[:number].count(stem) for number, stem in enumerate(stems)]
    return [stem if same == 0 else f"{stem}-{same + 1}" for stem, same in zip(stems, earlier, strict=True)]


def labelled_footage(
    videos: Sequence[LabelledVideo],
    pair: Pair,
    settings: Config,
    options: ClipOptions,
    out: Path,
    progress: ShowProgress,
    note: Callable[[str], None],
) -> Iterator[Footage]:
    """The tested part of each video. `pair`: with their classes, or the backbones where heads are to be taught."""
    from sagelink.lab.harness import Harness
    from sagelink.lab.video.labelled_clips import before, labelled_clip, teach_on_clip
    from sagelink.models.heads.apply import apply_head
    from sagelink.models.heads.head import read_head, write_head
    from sagelink.models.pair import Pair

    for video in videos:
        own_pair, own_settings = pair, settings
        if video.teach:
            taught = before(video.intervals, video.from_s)
            head = teach_on_clip(video.path, taught, pair, settings, out / "cache" / "features", options.seed, progress)
            path = head_path(out, video)
            write_head(head, path)
            own_settings = settings.model_copy(update={"head": path})
            own_pair = Pair(*apply_head(read_head(path), pair.edge, pair.server))
        classes = own_pair.edge.labels
        tested = {each.label for each in video.intervals if each.end_s > video.from_s}
        if untaught := sorted(tested - {*classes}):
            if untaught == sorted(tested):
                raise UsageError(
                    f"none of the labels {', '.join(map(repr, untaught[:5]))} of {str(video.path)!r} is a class of the "
                    "models; accepted: --teach-until 55%, or --head with a head of these classes"
                )
            note(f"{video.name}: {', '.join(untaught)} was not taught, so every answer to it counts as wrong")
        clip = labelled_clip(
            video.path, video.name, video.intervals, classes, options.fps, video.from_s, options.max_frames
        )
        if len(clip.frames) == options.max_frames:
            note(f"{video.name}: only {options.count * options.seconds:g} s are tested; --clips and --seconds set this")
        yield Footage(clip, Harness(own_pair, settings.capture.resize), own_settings, labelled_video=True)


def head_path(out: Path, video: LabelledVideo) -> Path:
    """Where the head that is taught for a video is written."""
    return out / f"{video.name}.head"


def unlabelled_clips(
    sources: Sequence[str], labels: Path | None, part: slice, classes: tuple[str, ...], options: ClipOptions
) -> Iterator[Clip]:
    """Clips drawn from images, or one of each video. Raises UsageError at once when a source cannot be read."""
    from sagelink.lab.video.clips import check_video, drawn_clips, real_clip

    if are_videos(sources):
        paths = [Path(source) for source in sources]
        for path in paths:
            if not path.is_file():
                raise UsageError(f"video {str(path)!r} does not exist; accepted: all videos, or one source of images")
            check_video(path)
        names = _video_names(paths)
        return (real_clip(path, name, options.fps, options.max_frames) for path, name in zip(paths, names, strict=True))
    if len(sources) > 1:
        raise UsageError(f"{len(sources)} sources; accepted: one folder of images or synthetic:N, or video files")
    photos = _album(sources[0], labels, part, classes)
    return drawn_clips(photos, options.count, options.seconds, options.fps, options.seed)


def _album(source: str, labels: Path | None, part: slice, classes: tuple[str, ...]) -> PhotoCollection:
    from sagelink.lab.dataset import find_pictures
    from sagelink.lab.video.clips import PhotoFiles, SyntheticPhotos
    from sagelink.stages.sources.world import CLASSES

    if source.startswith(_WORLD):
        number = source.removeprefix(_WORLD)
        if not number.isdecimal() or not 1 <= int(number) <= 10**6:
            raise UsageError(f"source {source!r}; accepted: synthetic:N with N from 1 to 1000000 scenes")
        if labels is not None:
            raise UsageError("--labels goes with images; the synthetic world knows its truth")
        if classes != CLASSES:
            raise UsageError("the synthetic world needs models that know its classes; accepted: --models demo")
        return SyntheticPhotos(int(number), 1000)
    pictures = find_pictures(Path(source), labels, classes)
    if pictures.truth is None:
        raise UsageError(f"images {source!r} have no truth; accepted: --labels FILE, or folders named after classes")
    chosen = pictures.subset(part, None)
    assert chosen.truth is not None
    return PhotoFiles(chosen.paths, chosen.truth)
