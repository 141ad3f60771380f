"""Clips with a truth for every frame: photographs that a camera pans over, zooms into, shakes before; or real videos.

A drawn clip is a series of shots. A shot shows one photograph with one kind of change over time; between two shots is a
scene cut. Everything follows from the seed, so a clip need not be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, get_args

import cv2
import numpy as np

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Pixels
from sagelink.stages.decoded import MAX_SIDE
from sagelink.stages.sources.contract import SourceFrame as Picture
from sagelink.stages.sources.images import read_image
from sagelink.stages.sources.video import VideoFile
from sagelink.stages.sources.world import render, sample_scene
from sagelink.stages.timeline import Sampler

Kind = Literal["still", "pan", "zoom", "shake", "occlusion", "light", "small", "cuts"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SLOW: tuple[Kind, ...] = ("still", "pan", "zoom")  # static and slow: where little happens

SIDE = 256  # pixels of a drawn frame
SHOT_S, CUT_S = 2.0, 1.0  # length of a shot; of one in a clip of cuts
_NOISE = 2.0  # sensor noise, standard deviation


class Album(Protocol):
    """Photographs with their truth."""

    def __len__(self) -> int: ...

    def photo(self, index: int) -> tuple[Pixels, int]: ...


@dataclass(frozen=True, slots=True)
class Photographs:
    """Labelled files."""

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
class World:
    """Scenes of the synthetic world."""

    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def photo(self, index: int) -> tuple[Pixels, int]:
        scene = sample_scene(np.random.default_rng([self.seed, index]))
        return render(scene, SIDE, SIDE, 0.0, np.random.default_rng([self.seed, index, 1])), scene.class_id


@dataclass(frozen=True, slots=True)
class Clip:
    """One stretch of video. `kind` is what happens in it; of a real one its file."""

    name: str
    kind: str
    frames: Sequence[Picture]


def drawn_clips(album: Album, count: int, seconds: float, fps: float, seed: int) -> Iterator[Clip]:
    """`count` clips over the photographs of an album in a random order, kinds in turn."""
    order = np.random.default_rng([seed, 0]).permutation(len(album))
    taken = 0
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        rng = np.random.default_rng([seed, 1, number])
        length = max(1, round(seconds * fps))
        each = max(1, round((CUT_S if kind == "cuts" else SHOT_S) * fps))
        frames: list[Picture] = []
        while len(frames) < length:
            photo, truth = album.photo(int(order[taken % len(order)]))
            backdrop, _ = album.photo(int(order[(taken + len(order) // 2) % len(order)]))
            taken += 1
            for pixels in islice(_shot(_square(photo), _square(backdrop), kind, each, rng), length - len(frames)):
                frames.append(Picture(pixels, len(frames) / fps, truth=truth))
        yield Clip(f"{number:03d}-{kind}", kind, frames)


def real_clips(path: Path, fps: float, seconds: float) -> Iterator[Clip]:
    """A video file in pieces of so many seconds. Raises UsageError."""
    video, sampler = VideoFile(path), Sampler(fps)
    try:
        piece: list[Picture] = []
        number = 0
        for shot in video:
            if not sampler.wants(shot.stream_s):
                continue
            if piece and shot.stream_s - piece[0].stream_s >= seconds:
                yield Clip(f"{path.stem}-{number:03d}", path.name, piece)
                piece, number = [], number + 1
            piece.append(shot)
        if piece:
            yield Clip(f"{path.stem}-{number:03d}", path.name, piece)
    finally:
        video.close()


def check_video(path: Path) -> None:
    """Raises UsageError unless the file is a video."""
    VideoFile(path).close()


def _square(photo: Pixels) -> Pixels:
    """A photograph scaled, as a whole, to a square twice the size of a frame at most."""
    side = min(max(photo.shape[:2]), 2 * SIDE, MAX_SIDE)
    scaled: Pixels = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    return scaled


def _shot(photo: Pixels, backdrop: Pixels, kind: Kind, frames: int, rng: np.random.Generator) -> Iterator[Pixels]:
    """Frames (SIDE, SIDE, 3) of one photograph; its middle always stays in view."""
    heading = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(heading), np.sin(heading)])
    inwards = rng.random() < 0.5
    sway = np.zeros(3)  # x, y in shares of the frame, degrees
    bar_side = rng.choice([-1, 1])
    wide = cv2.GaussianBlur(backdrop, (0, 0), 6) if kind == "small" else backdrop
    for step in range(frames):
        t = step / max(frames - 1, 1)  # 0 to 1 over the shot
        size, centre, angle = 0.9, np.zeros(2), 0.0  # of the view, in shares of the photograph
        if kind == "pan":
            size, centre = 0.75, 0.24 * (t - 0.5) * direction
        elif kind == "zoom":
            size = 1.0 - 0.4 * (t if inwards else 1 - t)
        elif kind == "shake":
            sway = 0.5 * sway + rng.normal(0, [0.02, 0.02, 1.5])
            size, centre, angle = 0.85, sway[:2], float(sway[2])
        if kind == "small":
            place = 0.5 + 0.2 * (t - 0.5) * direction + 0.12 * direction[::-1]
            image = _pasted(wide, photo, 0.5, place)
        else:
            image = _view(photo, size, centre, angle)
        if kind == "occlusion":  # a post of a quarter of the width passes
            left = round((1.25 * (t if bar_side > 0 else 1 - t) - 0.25) * SIDE)
            image[:, max(left, 0) : max(left + SIDE // 4, 0)] = 70
        light = 1.0 if kind != "light" else 0.35 + 0.95 * (0.5 + 0.5 * np.sin(heading + 2 * np.pi * t))
        noisy = image * light + rng.normal(0, _NOISE, image.shape)
        yield np.clip(noisy, 0, 255).astype(np.uint8)


def _view(photo: Pixels, size: float, centre: np.ndarray, angle: float) -> Pixels:
    """The part of a square photograph around a centre given in shares from its middle, as a frame."""
    side = len(photo)
    scale = SIDE / (size * side)
    matrix = cv2.getRotationMatrix2D((0.0, 0.0), angle, scale)
    middle = side * (0.5 + centre)
    matrix[:, 2] = SIDE / 2 - matrix[:, :2] @ middle
    view: Pixels = cv2.warpAffine(photo, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    return view


def _pasted(wide: Pixels, photo: Pixels, share: float, place: np.ndarray) -> Pixels:
    """A photograph of a share of the frame's side, its middle at a place in shares of the frame, in a wide scene."""
    side = round(share * SIDE)
    image: Pixels = cv2.resize(wide, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    left, top = (int(at) for at in np.clip(np.rint(place * SIDE) - side // 2, 0, SIDE - side))
    image[top : top + side, left : left + side] = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    return image
