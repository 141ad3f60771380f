"""Measures the rate-quality frontier of a server model on your own images.

In: scored images and operating points. Out: for each point the median message size in bytes, the agreement with the
full frame and the fusion weight of the answer (`FrontierModel`, the YAML file for `encode.frontier`).

Every image is encoded at every point, decoded and classified by the server model.

- Agreement: mean probability of the class that the server gives to the full frame, divided by the probability that the
  full frame itself gives it. It is close to the share of images whose answer stays the same, but it does not jump when
  a single answer changes.
- Weight: the one under which the fused answer predicts the target best. The target is the true class; without labels,
  it is the fused answer on the full frame. Only the half of the images with the least certain edge answers is used,
  because frames with a certain edge answer are not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from sagelink.lab.harness import Sample, full_evidence, mean_full_frame_prob, server_log_probs, zoom_crop_of
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.files.private_files import replace_text
from sagelink.pipeline.types import OperatingPoint
from sagelink.server.classify import Classifier
from sagelink.server.receive import receive
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier import CurveModel, FrontierModel
from sagelink.transport.codecs import Canvas

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
FULL_WEIGHT = 0.5  # without labels: weight of the server's answer to a full frame, and the upper limit of all weights
_AVIF = (2, 14, 24, 34, 44, 56, 72, 88)
_WEBP = (1, 10, 30, 55, 80)
_JPEG = (3, 10, 25, 50, 85)
_AVIF_ZOOM = (14, 24, 34, 44, 56, 72)
_AVIF_RECTANGLE = (14, 24, 34, 44, 56)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Curves to measure: one per combination of `sides`, `units` and `views`; the quality varies along a curve."""

    codec: str
    qualities: tuple[int, ...]
    sides: tuple[float, ...] = (1.0,)  # side of the coded picture, as a share of the full side
    units: tuple[float, ...] = (1.0,)  # share of the units
    views: tuple[float, ...] = (1.0,)  # side of the zoom crop, as a share of the view


_SIDES = (0.43, 0.57, 0.71, 0.86, 1.0)  # of 224 pixels, 0.57 and 0.86 are multiples of AV1's superblock of 64 pixels
SWEEPS = (
    Sweep("avif", _AVIF, sides=_SIDES),
    Sweep("avif", _AVIF_ZOOM, sides=_SIDES[1:], views=(0.86, 0.79)),
    Sweep("avif", _AVIF_RECTANGLE, sides=(0.57, 0.86), units=(0.5, 0.8)),
    Sweep("webp", _WEBP, sides=_SIDES),
    Sweep("avif-frame", _AVIF, sides=_SIDES),
    Sweep("webp-frame", _WEBP, sides=_SIDES),
    Sweep("jpeg-frame", _JPEG, sides=_SIDES),
)
# Codecs with a fixed quality, one curve per quality; the number of units varies along a curve.
UNIT_SWEEPS = {"raw-zstd": (0,), "token-zstd": (4, 6)}
FRONTIER_MARK = "# points: setting of the knob: [median bytes of a message, agreement, weight]"  # second line of a file
UNIT_SHARES = (0.08, 0.16, 0.25, 0.35, 0.5, 0.7, 1.0)

CurvePlan = tuple[CurveModel, list[OperatingPoint]]  # a curve without its points, and the points to measure


def plan_curves(canvas: Canvas, sweeps: Sequence[Sweep] = SWEEPS) -> Iterator[CurvePlan]:
    """All curves to measure: those of `sweeps`, then those of UNIT_SWEEPS."""

    def curve(point: OperatingPoint, units: int | None = None, quality: int | None = None) -> CurveModel:
        view = point.view if point.view < 1 else None
        return CurveModel.model_construct(
            codec=point.codec, side=point.side, units=units, quality=quality, view=view, points={}
        )

    for sweep in sweeps:
        for share, view, scale in product(sweep.units, sweep.views, sweep.sides):
            units = round(share * canvas.units)
            side = canvas.pixels if scale == 1 else round(scale * canvas.pixels / 8) * 8
            points = [OperatingPoint(sweep.codec, units, side, quality, view) for quality in sweep.qualities]
            yield curve(points[0], units=units), points
    counts = sorted({max(1, round(share * canvas.units)) for share in UNIT_SHARES})
    for codec, qualities in UNIT_SWEEPS.items():
        for quality in qualities:
            points = [OperatingPoint(codec, count, canvas.pixels, quality) for count in counts]
            yield curve(points[0], quality=quality), points


def measure(
    samples: Sequence[Sample],
    classifier: Classifier,
    plans: Sequence[CurvePlan],
    progress: Callable[[int, int], None] = lambda done, total: None,
    measured: Sequence[CurveModel] = (),
    save: Callable[[FrontierModel], None] = lambda frontier: None,
) -> FrontierModel:
    """Measures the planned curves on the samples.

    `progress` gets the number of finished operating points and their total. Curves in `measured` are taken over without
    measuring them again. `save` gets the frontier so far after each measured curve.
    """
    canvas = classifier.canvas
    points_meter = _PointMeter(samples, classifier)
    total, done = sum(len(points) for _, points in plans), 0
    curves: list[CurveModel] = []

    def frontier() -> FrontierModel:
        return FrontierModel(server=classifier.model.name, units=canvas.units, pixels=canvas.pixels, lines=curves)

    for curve, points in plans:
        earlier = next((other for other in measured if _is_same_curve(other, curve, points)), None)
        if earlier is not None:
            curves.append(earlier)
            done += len(points)
            continue
        rows = []
        for point in points:
            rows.append(points_meter.measure(point))
            done += 1
            progress(done, total)
        # Bytes, agreement and weight must not fall along a curve: a decrease is noise, replaced by the running maximum.
        rising = np.maximum.accumulate(np.array(rows), axis=0).tolist()
        settings = _settings(curve, points)
        values = {setting: (int(b), round(a, 4), w) for setting, (b, a, w) in zip(settings, rising, strict=True)}
        curves.append(curve.model_copy(update={"points": values}))
        save(frontier())
    return frontier()


class _PointMeter:
    """Measures single operating points on a fixed set of samples."""

    def __init__(self, samples: Sequence[Sample], classifier: Classifier) -> None:
        self._samples = samples
        self._classifier = classifier
        self._encoder = Encoder([], classifier.canvas)
        grid = classifier.model.grid
        self._zooms = [zoom_crop_of(sample.padded_view, sample.importance, grid) for sample in samples]
        self._full = server_log_probs(classifier, [full_evidence(each.picture, classifier.canvas) for each in samples])
        self._full_prob = mean_full_frame_prob(self._full, self._full)
        # Answers by decoded content: a codec and its whole-frame form decode to the same picture.
        self._answers: dict[int, NDArray[np.float32]] = {}
        self._edge = np.stack([sample.edge for sample in samples])
        fused = (self._edge + FULL_WEIGHT * self._full).argmax(1)
        self._targets = np.array(
            [best if sample.truth is None else sample.truth for sample, best in zip(samples, fused, strict=True)]
        )
        self._unsure = np.argsort(self._edge.max(1), kind="stable")[: max(1, len(samples) // 2)]
        labelled = all(sample.truth is not None for sample in samples)
        self._max_weight = max(WEIGHTS) if labelled else FULL_WEIGHT

    def measure(self, point: OperatingPoint) -> tuple[float, float, float]:
        """Median message size in bytes, agreement (0 to 1) and fusion weight."""
        messages = [
            self._encoder.message(0, sample.picture, sample.order, point, zoom)
            for sample, zoom in zip(self._samples, self._zooms, strict=True)
        ]
        answers = self._classify(messages)
        agreement = min(1.0, mean_full_frame_prob(answers, self._full) / self._full_prob)
        unsure = self._unsure
        weight = min(best_weight(self._edge[unsure], answers[unsure], self._targets[unsure]), self._max_weight)
        return float(np.median([len(message) for message in messages])), agreement, weight

    def _classify(self, messages: Sequence[bytes]) -> NDArray[np.float32]:
        evidence = [receive(message, self._classifier.canvas) for message in messages]
        key = hash(b"".join(received.content.tobytes() for received in evidence))
        if key not in self._answers:
            self._answers[key] = server_log_probs(self._classifier, evidence)
        return self._answers[key]


def _settings(curve: CurveModel, points: Sequence[OperatingPoint]) -> list[int]:
    """The values along the curve: qualities or numbers of units."""
    return [point.quality if curve.units is not None else point.units for point in points]


def _is_same_curve(measured: CurveModel, curve: CurveModel, points: Sequence[OperatingPoint]) -> bool:
    return measured.model_copy(update={"points": {}}) == curve and [*measured.points] == _settings(curve, points)


def best_weight(edge: NDArray[np.float32], server: NDArray[np.float32], targets: NDArray[np.intp]) -> float:
    """The weight out of WEIGHTS under which the fused answer has the highest mean log-likelihood.

    `edge` and `server` are log-probabilities (B, C), `targets` class ids (B,). The fused answer is the weighted
    geometric mean of both probabilities, with weight 1 for the edge.
    """

    def likelihood(weight: float) -> float:
        mean = (edge + weight * server) / (1 + weight)
        mean = mean - mean.max(1, keepdims=True)
        log_probs = mean - np.log(np.exp(mean).sum(1, keepdims=True))
        return float(log_probs[np.arange(len(targets)), targets].mean())

    return max(WEIGHTS, key=likelihood)


def write_frontier(frontier: FrontierModel, path: Path, note: str) -> None:
    """Writes the YAML file that `sagelink.stages.frontier` reads. `note` is its first comment line.

    The file is replaced in one step, so an interrupted write leaves the old file. Raises SagelinkError.
    """
    content = frontier.model_dump(exclude_none=True)
    for curve in content["lines"]:
        curve["points"] = {setting: list(values) for setting, values in curve["points"].items()}
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    try:
        replace_text(path, f"# {' '.join(note.split())}\n{FRONTIER_MARK}\n{text}")
    except OSError as error:
        raise cannot_write(path, error) from None
