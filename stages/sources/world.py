"""Draws synthetic scenes with a known true class, at any size, from a random generator.

A scene holds one object of `CLASSES` on a textured background, among clutter that belongs to no class. Position, size,
rotation, colours, clutter and sensor noise vary. Lengths are in units of the frame's short side, from the centre of the
frame, so the same scene renders at any size. The demo models are trained on these scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2), x and y in [-1, 1] in the object's frame, y down
Pixels = NDArray[np.uint8]  # (H, W, 3) RGB, or (H, W)

_SUBPIXEL_BITS = 4


def _arc(radius: float, start: float = 0.0, stop: float = 360.0, centre: tuple[float, float] = (0, 0)) -> Points:
    angles = np.radians(np.linspace(start, stop, 40))
    return np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], axis=1)


def _regular(corners: int, radius: float = 1.0) -> Points:
    angles = np.radians(-90 + np.arange(corners) * 360 / corners)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> Points:
    star = np.empty((10, 2))
    star[0::2] = _regular(5)
    star[1::2] = -0.42 * np.roll(_regular(5), 2, axis=0)
    return star


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 48)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 17


def _spiral() -> Points:
    t = np.linspace(0.5, 4.6 * np.pi, 90)
    line = (t / t[-1])[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)
    return np.concatenate([line, line[::-1] - 0.17 * np.stack([np.cos(t), np.sin(t)], axis=1)[::-1]])


def _crescent() -> Points:
    return np.concatenate([_arc(1.0, 50, 310), _arc(0.82, 291, 69, (0.42, 0))])


def _polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, dtype=np.float64)


# A shape is a list of parts; a part is a list of contours, filled by the even-odd rule: a second contour is a hole.
_Shape = list[list[Points]]
_SHAPES: dict[str, Callable[[], _Shape]] = {
    "disc": lambda: [[_arc(0.9)]],
    "ring": lambda: [[_arc(1.0), _arc(0.55)]],
    "triangle": lambda: [[_regular(3)]],
    "square": lambda: [[_regular(4)]],
    "star": lambda: [[_star()]],
    "cross": lambda: [
        [_polygon((-0.3, -1), (0.3, -1), (0.3, 1), (-0.3, 1))],
        [_polygon((-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3))],
    ],
    "arrow": lambda: [
        [_polygon((0, -1), (0.75, -0.1), (0.28, -0.1), (0.28, 1), (-0.28, 1), (-0.28, -0.1), (-0.75, -0.1))]
    ],
    "heart": lambda: [[_heart()]],
    "crescent": lambda: [[_crescent()]],
    "house": lambda: [
        [
            _polygon((0, -1), (0.95, -0.2), (0.7, -0.2), (0.7, 0.9), (-0.7, 0.9), (-0.7, -0.2), (-0.95, -0.2)),
            _polygon((-0.2, 0.9), (-0.2, 0.25), (0.25, 0.25), (0.25, 0.9)),
        ]
    ],
    "fish": lambda: [
        [_arc(1.0, 0, 360) * [0.72, 0.42] + [0.2, 0], _arc(0.1, 0, 360, (0.58, -0.1))],
        [_polygon((-0.35, 0), (-1, -0.5), (-0.85, 0), (-1, 0.5))],
    ],
    "bolt": lambda: [[_polygon((0.2, -1), (-0.55, 0.15), (-0.05, 0.15), (-0.25, 1), (0.6, -0.25), (0.1, -0.25))]],
    "spiral": lambda: [[_spiral()]],
    "mug": lambda: [
        [_polygon((-0.75, -0.75), (0.4, -0.75), (0.4, 0.8), (-0.75, 0.8))],
        [_arc(0.5, centre=(0.45, 0.0)), _arc(0.26, centre=(0.45, 0.0))],
    ],
    "key": lambda: [
        [_arc(0.42, centre=(-0.58, 0)), _arc(0.2, centre=(-0.58, 0))],
        [_polygon((-0.2, -0.12), (1, -0.12), (1, 0.45), (0.82, 0.45), (0.82, 0.12), (-0.2, 0.12))],
        [_polygon((0.5, 0.1), (0.66, 0.1), (0.66, 0.4), (0.5, 0.4))],
    ],
    "tree": lambda: [
        [_polygon((0, -1), (0.55, -0.2), (-0.55, -0.2))],
        [_polygon((0, -0.6), (0.75, 0.45), (-0.75, 0.45))],
        [_polygon((-0.15, 0.4), (0.15, 0.4), (0.15, 1), (-0.15, 1))],
    ],
}
CLASSES: tuple[str, ...] = tuple(_SHAPES)

# Shapes that the demo models have never seen. The second half of the demo teaches them.
_UNSEEN: dict[str, Callable[[], _Shape]] = {
    "hourglass": lambda: [[_polygon((-0.8, -1), (0.8, -1), (0.12, 0), (0.8, 1), (-0.8, 1), (-0.12, 0))]],
    "ladder": lambda: [
        [_polygon((-0.6, -1), (-0.4, -1), (-0.4, 1), (-0.6, 1))],
        [_polygon((0.4, -1), (0.6, -1), (0.6, 1), (0.4, 1))],
        *([_polygon((-0.5, y), (0.5, y), (0.5, y + 0.16), (-0.5, y + 0.16))] for y in (-0.75, -0.3, 0.15, 0.6)),
    ],
    "mushroom": lambda: [
        [_arc(0.95, 180, 360)],
        [_polygon((-0.28, -0.02), (0.28, -0.02), (0.36, 0.95), (-0.36, 0.95))],
    ],
    "glasses": lambda: [
        [_arc(0.46, centre=(-0.54, 0)), _arc(0.3, centre=(-0.54, 0))],
        [_arc(0.46, centre=(0.54, 0)), _arc(0.3, centre=(0.54, 0))],
        [_polygon((-0.12, -0.14), (0.12, -0.14), (0.12, 0.04), (-0.12, 0.04))],
    ],
}
UNSEEN: tuple[str, ...] = tuple(_UNSEEN)  # their class ids follow those of CLASSES


@dataclass(frozen=True, slots=True)
class Mark:
    """One piece of clutter: an open line, a small polygon or a blob."""

    points: Points  # in short sides, around the frame's centre
    colour: NDArray[np.float64]  # (3,) RGB 0..255
    thickness: float  # short sides; 0 fills the polygon


@dataclass(frozen=True, slots=True)
class DrawnScene:
    """The properties that all frames of a scene share; `render` adds time and noise."""

    class_id: int
    centre: tuple[float, float]  # short sides from the frame's centre, at t = 0
    velocity: tuple[float, float]  # short sides per second
    radius: float  # short sides
    angle: float  # degrees at t = 0
    spin: float  # degrees per second
    colours: tuple[NDArray[np.float64], NDArray[np.float64]]  # the object's fill runs from one to the other
    backdrop: NDArray[np.float32]  # (k, k, 3) coarse background, 0..255
    marks: tuple[Mark, ...]
    noise: float  # standard deviation of the sensor noise, 0..255

    @property
    def label(self) -> str:
        return (*CLASSES, *UNSEEN)[self.class_id]


def sample_scene(rng: np.random.Generator, class_id: int | None = None) -> DrawnScene:
    """Draws a scene; `class_id` of CLASSES and then UNSEEN, or None for a random one of CLASSES."""
    if class_id is None:
        class_id = int(rng.integers(len(CLASSES)))
    radius = float(rng.uniform(0.17, 0.4))
    room = 0.5 - 0.8 * radius
    cells = int(rng.integers(2, 9))
    # Surroundings are nearly grey and objects are coloured, as on many real sites: colour shows where, not what.
    base = rng.uniform(50, 205) + _chroma(rng, rng.normal(0, 8))
    light = rng.normal(0, rng.uniform(4, 24), (cells, cells, 1))
    backdrop = np.clip(base + light + rng.normal(0, 4, (cells, cells, 3)), 0, 255).astype(np.float32)
    fill = np.clip(base + rng.uniform(-50, 50) + _chroma(rng, rng.uniform(45, 120)), 0, 255)
    shade = fill + rng.normal(0, 15, 3)
    marks = tuple(_sample_mark(rng, base) for _ in range(rng.integers(3, 14)))
    return DrawnScene(
        class_id=class_id,
        centre=(float(rng.uniform(-room, room)), float(rng.uniform(-room, room))),
        velocity=(float(rng.normal(0, 0.06)), float(rng.normal(0, 0.06))),
        radius=radius,
        angle=float(rng.uniform(0, 360)),
        spin=float(rng.normal(0, 12)),
        colours=(fill, np.clip(shade, 0, 255)),
        backdrop=backdrop,
        marks=marks,
        noise=float(rng.uniform(2, 12)),
    )


def _chroma(rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """A colour difference (3,) of random hue that leaves the mean of red, green and blue as it is."""
    hue = rng.uniform(0, 2 * np.pi)
    return strength * np.cos(hue + np.array([0, 2, 4]) * np.pi / 3)


def _sample_mark(rng: np.random.Generator, base: NDArray[np.float64]) -> Mark:
    tint = rng.uniform(40, 100) if rng.random() < 0.2 else 10
    colour = np.clip(base + rng.normal(0, 45) + _chroma(rng, tint), 0, 255)
    place = rng.uniform(-0.6, 0.6, 2)
    kind = rng.integers(3)
    if kind == 0:  # an open line of one to three strokes
        steps = rng.normal(0, 0.16, (int(rng.integers(2, 5)), 2))
        return Mark(place + np.cumsum(steps, axis=0), colour, float(rng.uniform(0.006, 0.03)))
    if kind == 1:  # a crooked polygon
        return Mark(place + rng.normal(0, 0.05, (int(rng.integers(4, 7)), 2)), colour, 0.0)
    return Mark(place + _arc(1.0) * rng.uniform(0.015, 0.06, 2), colour, 0.0)


def _fixed(points: Points, centre: tuple[float, float], scale: float) -> NDArray[np.int32]:
    """Short-side units to OpenCV's fixed-point pixels, shape (n, 1, 2)."""
    pixels = points * scale + np.asarray(centre)
    fixed: NDArray[np.int32] = np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    return fixed[:, None, :]


def _bounce(start: float, velocity: float, t: float, room: float) -> float:
    """Position after `t` seconds between two walls at +-room."""
    if room <= 0:
        return start
    span = 2 * room
    phase = (start + room + velocity * t) % (2 * span)
    return (phase if phase <= span else 2 * span - phase) - room


def cover(scene: DrawnScene, width: int, height: int, t: float) -> Pixels:
    """The share of each pixel that the object covers at `t` seconds: uint8 (height, width), 255 = all."""
    room = 0.5 - 0.8 * scene.radius
    centre = [_bounce(c, v, t, room) for c, v in zip(scene.centre, scene.velocity, strict=True)]
    angle = np.radians(scene.angle + scene.spin * t)
    turn = scene.radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mask = np.zeros((height, width), np.uint8)
    for part in (_SHAPES | _UNSEEN)[scene.label]():
        contours = [_fixed(contour @ turn.T + centre, (width / 2, height / 2), min(width, height)) for contour in part]
        cv2.fillPoly(mask, contours, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return mask


def render(scene: DrawnScene, width: int, height: int, t: float, noise_rng: np.random.Generator) -> Pixels:
    """The scene at `t` seconds as RGB uint8 (height, width, 3); the object is drawn last, over the clutter."""
    short = min(width, height)
    middle = (width / 2, height / 2)
    image: NDArray[np.float32] = cv2.resize(scene.backdrop, (width, height), interpolation=cv2.INTER_CUBIC)
    for mark in scene.marks:
        points = _fixed(mark.points, middle, short)
        if mark.thickness:
            thickness = max(1, round(mark.thickness * short))
            cv2.polylines(image, [points], False, mark.colour.tolist(), thickness, cv2.LINE_8, _SUBPIXEL_BITS)
        else:
            cv2.fillPoly(image, [points], mark.colour.tolist(), cv2.LINE_8, _SUBPIXEL_BITS)

    alpha = (cover(scene, width, height, t).astype(np.float32) / 255)[:, :, None]
    shading = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    first, second = (c.astype(np.float32) for c in scene.colours)
    fill = first + shading * (second - first)
    image += alpha * (fill - image)
    image += scene.noise * noise_rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)
