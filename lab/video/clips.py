"""Video clips with a true class id per frame: drawn from photographs with simulated camera motion, or cut from videos.

In: photographs or a video file. Out: `Clip`. A drawn clip is a series of shots with a scene cut between them; a shot
shows one photograph under one kind of change. Drawn clips follow from their seed, so they need not be stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, get_args

import cv2
import numpy as np

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Pixels
from sagelink.stages.decoded_picture import MAX_SIDE
from sagelink.stages.small_pictures import reduced
from sagelink.stages.sources.contract import SourceFrame
from sagelink.stages.sources.image_file import read_image
from sagelink.stages.sources.video import VideoFile
from sagelink.stages.sources.world import render, sample_scene
from sagelink.stages.timestamps import Sampler

Kind = Literal["still", "pan", "zoom", "shake", "occlusion", "light", "small", "cuts"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SLOW_KINDS: tuple[Kind, ...] = ("still", "pan", "zoom")

SIDE = 256  # pixels, of a drawn frame
SHOT_S, CUT_SHOT_S = 2.0, 1.0  # length of a shot; in a clip of kind `cuts`
_NOISE = 2.0  # sensor noise, standard deviation in grey levels


class PhotoCollection(Protocol):
    """Photographs with their true class ids."""

    def __len__(self) -> int: ...

    def photo(self, index: int) -> tuple[Pixels, int]: ...


@dataclass(frozen=True, slots=True)
class PhotoFiles:
    """Labelled image files."""

    paths: Sequence[Path]
    truth: Sequence[int]

    def __len__(self) -> int:
        return len(self.paths)

    def photo(self, index: int) -> tuple[Pixels, int]:
        try:
            return read_image(self.paths[index]), self.truth[index]
        except OSError as error:
            raise UsageError(f"image {str(self.paths[index])!r} cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class SyntheticPhotos:
    """Rendered scenes of the synthetic world."""

    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def photo(self, index: int) -> tuple[Pixels, int]:
        scene = sample_scene(np.random.default_rng([self.seed, index]))
        return render(scene, SIDE, SIDE, 0.0, np.random.default_rng([self.seed, index, 1])), scene.class_id


@dataclass(frozen=True, slots=True)
class Clip:
    name: str
    kind: str  # a `Kind`; for a real video its file name
    frames: Sequence[SourceFrame]
    labelled: bool = True  # False: the server's answer to the full frame is the truth of each frame


def drawn_clips(photos: PhotoCollection, count: int, seconds: float, fps: float, seed: int) -> Iterator[Clip]:
    """`count` clips of the photographs in random order; clip i has kind i modulo the number of kinds."""
    order = np.random.default_rng([seed, 0]).permutation(len(photos))
    used = 0
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        rng = np.random.default_rng([seed, 1, number])
        length = max(1, round(seconds * fps))
        shot_frames = max(1, round((CUT_SHOT_S if kind == "cuts" else SHOT_S) * fps))
        frames: list[SourceFrame] = []
        while len(frames) < length:
            photo, truth = photos.photo(int(order[used % len(order)]))
            backdrop, _ = photos.photo(int(order[(used + len(order) // 2) % len(order)]))
            used += 1
            shot = _draw_shot(_square(photo), _square(backdrop), kind, shot_frames, rng)
            for pixels in islice(shot, length - len(frames)):
                frames.append(SourceFrame(pixels, len(frames) / fps, truth=truth))
        yield Clip(f"{number:03d}-{kind}", kind, frames)


def real_clip(path: Path, name: str, fps: float, max_frames: int) -> Clip:
    """A video file without labels, sampled at `fps`, as one clip: a camera that runs on. Raises UsageError."""
    return Clip(name, path.name, [*sampled_frames(path, fps, max_frames=max_frames)], labelled=False)


def sampled_frames(path: Path, fps: float, from_s: float = 0.0, max_frames: int | None = None) -> Iterator[SourceFrame]:
    """Frames of a video at `fps` from a time on, at most `max_frames`. Raises UsageError.

    Frames whose shorter side is more than twice that of a drawn frame are scaled down: a clip stays in memory.
    """
    video, sampler = VideoFile(path), Sampler(fps)
    try:
        late = (frame for frame in video if frame.stream_s >= from_s)
        for frame in islice((each for each in late if sampler.wants(each.stream_s)), max_frames):
            yield replace(frame, pixels=_bounded(frame.pixels))
    finally:
        video.close()


def _bounded(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    return reduced(pixels, round(2 * SIDE * max(height, width) / min(height, width)))


def check_video(path: Path) -> None:
    """Raises UsageError if the file cannot be opened as a video."""
    VideoFile(path).close()


def _square(photo: Pixels) -> Pixels:
    """The whole photograph, scaled to a square of at most twice the side of a frame."""
    side = min(max(photo.shape[:2]), 2 * SIDE, MAX_SIDE)
    scaled: Pixels = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    return scaled


def _draw_shot(photo: Pixels, backdrop: Pixels, kind: Kind, frames: int, rng: np.random.Generator) -> Iterator[Pixels]:
    """Frames (SIDE, SIDE, 3) of one photograph; its centre is always visible."""
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    zooms_in = rng.random() < 0.5
    shake = np.zeros(3)  # x, y as shares of the frame, rotation in degrees
    bar_direction = rng.choice([-1, 1])
    blurred = cv2.GaussianBlur(backdrop, (0, 0), 6) if kind == "small" else backdrop
    for step in range(frames):
        t = step / max(frames - 1, 1)  # 0 to 1 over the shot
        size, centre, rotation = 0.9, np.zeros(2), 0.0  # of the visible part, in shares of the photograph
        if kind == "pan":
            size, centre = 0.75, 0.24 * (t - 0.5) * direction
        elif kind == "zoom":
            size = 1.0 - 0.4 * (t if zooms_in else 1 - t)
        elif kind == "shake":
            shake = 0.5 * shake + rng.normal(0, [0.02, 0.02, 1.5])
            size, centre, rotation = 0.85, shake[:2], float(shake[2])
        if kind == "small":
            position = 0.5 + 0.2 * (t - 0.5) * direction + 0.12 * direction[::-1]
            image = _paste(blurred, photo, 0.5, position)
        else:
            image = _camera_view(photo, size, centre, rotation)
        if kind == "occlusion":  # a post, a quarter of the frame wide, passes
            left = round((1.25 * (t if bar_direction > 0 else 1 - t) - 0.25) * SIDE)
            image[:, max(left, 0) : max(left + SIDE // 4, 0)] = 70
        light = 1.0 if kind != "light" else 0.35 + 0.95 * (0.5 + 0.5 * np.sin(angle + 2 * np.pi * t))
        noisy = image * light + rng.normal(0, _NOISE, image.shape)
        yield np.clip(noisy, 0, 255).astype(np.uint8)


def _camera_view(photo: Pixels, size: float, centre: np.ndarray, rotation: float) -> Pixels:
    """The visible part of a square photograph as a frame (SIDE, SIDE, 3).

    `size`: side of the part, `centre`: its offset (x, y) from the centre of the photograph, both as shares of the
    photograph's side; `rotation` in degrees.
    """
    side = len(photo)
    scale = SIDE / (size * side)
    matrix = cv2.getRotationMatrix2D((0.0, 0.0), rotation, scale)
    middle = side * (0.5 + centre)
    matrix[:, 2] = SIDE / 2 - matrix[:, :2] @ middle
    view: Pixels = cv2.warpAffine(photo, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    return view


def _paste(backdrop: Pixels, photo: Pixels, share: float, position: np.ndarray) -> Pixels:
    """A frame (SIDE, SIDE, 3) of the backdrop with a small photograph in it.

    `share`: side of the photograph, `position`: its centre (x, y), both as shares of the frame's side.
    """
    side = round(share * SIDE)
    image: Pixels = cv2.resize(backdrop, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    left, top = (int(at) for at in np.clip(np.rint(position * SIDE) - side // 2, 0, SIDE - side))
    image[top : top + side, left : left + side] = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    return image
