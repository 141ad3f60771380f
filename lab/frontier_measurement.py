"""Measures the frontier of a pair of models on pictures of one's own: what each operating point costs and is worth.

Every picture is coded at every setting, decoded and classified as the server would. Agreement is the mean probability
of the full frame's answer, as a share of the one that the full frame itself gives it: about the share of pictures whose
answer stays, but it does not jump when one changes. The weight is the one with which the fused answer foretells best
the truth, or, where nobody knows it, the fused answer to the full frame, on the half of the pictures that the edge is
less sure of. No label is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from sagelink.lab.harness import Sample, belief, log_probs_of, zoom_crop_of
from sagelink.pipeline.types import OperatingPoint
from sagelink.server.classify import Classifier
from sagelink.server.receive import Received, receive
from sagelink.stages.encoder import Encoder
from sagelink.stages.frontier import CurveModel, FrontierModel
from sagelink.transport.codecs import Canvas, cut_units

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
FULL_WEIGHT = 0.5  # of the server's answer to a full frame, and the most that any gets, where there is no truth
_AVIF = (2, 14, 24, 34, 44, 56, 72, 88)
_WEBP = (1, 10, 30, 55, 80)
_JPEG = (3, 10, 25, 50, 85)
_CLOSER = (14, 24, 34, 44, 56, 72)
_PART = (14, 24, 34, 44, 56)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Lines to measure: a codec at shares of the picture's side and of its units, and of the side of what is sent."""

    codec: str
    settings: tuple[int, ...]  # of the quality
    sides: tuple[float, ...] = (1.0,)
    units: tuple[float, ...] = (1.0,)
    views: tuple[float, ...] = (1.0,)


_SIDES = (0.43, 0.57, 0.71, 0.86, 1.0)  # of 224 pixels 0.57 and 0.86 are whole superblocks of AV1
SWEEPS = (
    Sweep("avif", _AVIF, sides=_SIDES),
    Sweep("avif", _CLOSER, sides=_SIDES[1:], views=(0.86, 0.79)),
    Sweep("avif", _PART, sides=(0.57, 0.86), units=(0.5, 0.8)),
    Sweep("webp", _WEBP, sides=_SIDES),
    Sweep("avif-frame", _AVIF, sides=_SIDES),
    Sweep("webp-frame", _WEBP, sides=_SIDES),
    Sweep("jpeg-frame", _JPEG, sides=_SIDES),
)
# Codecs whose knob is the number of units, with their quality.
UNIT_SWEEPS = {"raw-zstd": (0,), "token-zstd": (4, 6)}
UNIT_SHARES = (0.08, 0.16, 0.25, 0.35, 0.5, 0.7, 1.0)


def empty_lines(canvas: Canvas, sweeps: Sequence[Sweep] = SWEEPS) -> Iterator[tuple[CurveModel, list[OperatingPoint]]]:
    """Every line to measure, without its points, and the operating points that it is measured at."""

    def line(point: OperatingPoint, units: int | None = None, quality: int | None = None) -> CurveModel:
        view = point.view if point.view < 1 else None
        return CurveModel.model_construct(
            codec=point.codec, side=point.side, units=units, quality=quality, view=view, points={}
        )

    for sweep in sweeps:
        for share, view, scale in product(sweep.units, sweep.views, sweep.sides):
            units = round(share * canvas.units)
            side = canvas.pixels if scale == 1 else round(scale * canvas.pixels / 8) * 8
            points = [OperatingPoint(sweep.codec, units, side, quality, view) for quality in sweep.settings]
            yield line(points[0], units=units), points
    counts = sorted({max(1, round(share * canvas.units)) for share in UNIT_SHARES})
    for codec, qualities in UNIT_SWEEPS.items():
        for quality in qualities:
            points = [OperatingPoint(codec, count, canvas.pixels, quality) for count in counts]
            yield line(points[0], quality=quality), points


def measure(
    samples: Sequence[Sample],
    classifier: Classifier,
    todo: Sequence[tuple[CurveModel, list[OperatingPoint]]],
    progress: Callable[[int, int], None] = lambda done, total: None,
    known: Sequence[CurveModel] = (),
    keep: Callable[[FrontierModel], None] = lambda frontier: None,
) -> FrontierModel:
    """The frontier of a server on samples, for lines as `empty_lines` gives them. `progress`: settings done, in all.

    Lines that are `known` are not measured again; `keep` is told after each line what is complete.
    """
    canvas = classifier.canvas
    encoder = Encoder([], canvas)
    closers = [zoom_crop_of(sample.padded_view, sample.importance, classifier.model.grid) for sample in samples]
    everything = np.arange(canvas.units)
    whole = [Received(0, everything, cut_units(sample.picture, everything, canvas.patch_size)) for sample in samples]
    seen: dict[int, NDArray[np.float32]] = {}  # the same picture comes out of a file and of its stripped form
    full = log_probs_of(classifier, whole)
    sure = belief(full, full)
    edge = np.stack([sample.edge for sample in samples])
    fused = (edge + FULL_WEIGHT * full).argmax(1)
    targets = np.array(
        [best if sample.truth is None else sample.truth for sample, best in zip(samples, fused, strict=True)]
    )
    # Frames that the edge is sure of are not sent, so they have no say in how much an answer weighs.
    unsure = np.argsort(edge.max(1), kind="stable")[: max(1, len(samples) // 2)]
    most_weight = FULL_WEIGHT if any(sample.truth is None for sample in samples) else max(WEIGHTS)
    total, done = sum(len(points) for _, points in todo), 0
    lines: list[CurveModel] = []

    def frontier() -> FrontierModel:
        return FrontierModel(server=classifier.model.name, units=canvas.units, pixels=canvas.pixels, lines=lines)

    for line, points in todo:
        before = next((each for each in known if _same(each, line, points)), None)
        if before is not None:
            lines.append(before)
            done += len(points)
            continue
        rows = []
        for point in points:
            messages = [
                encoder.message(0, sample.picture, sample.order, point, closer)
                for sample, closer in zip(samples, closers, strict=True)
            ]
            evidence = [receive(message, canvas) for message in messages]
            key = hash(b"".join(received.content.tobytes() for received in evidence))
            answers = seen[key] = seen[key] if key in seen else log_probs_of(classifier, evidence)
            agreement = min(1.0, belief(answers, full) / sure)
            weight = min(best_weight(edge[unsure], answers[unsure], targets[unsure]), most_weight)
            rows.append((np.median([len(m) for m in messages]), agreement, weight))
            done += 1
            progress(done, total)
        # What falls as the knob is turned up is noise: the settings below are held to be as good.
        grown = np.maximum.accumulate(np.array(rows), axis=0)
        measured = {
            knob: (int(b), round(a, 4), w) for knob, (b, a, w) in zip(_knobs(line, points), grown.tolist(), strict=True)
        }
        lines.append(line.model_copy(update={"points": measured}))
        keep(frontier())
    return frontier()


def _knobs(line: CurveModel, points: Sequence[OperatingPoint]) -> list[int]:
    return [point.quality if line.units is not None else point.units for point in points]


def _same(measured: CurveModel, line: CurveModel, points: Sequence[OperatingPoint]) -> bool:
    """Whether `measured` is `line`, at these points."""
    return measured.model_copy(update={"points": {}}) == line and [*measured.points] == _knobs(line, points)


def best_weight(edge: NDArray[np.float32], server: NDArray[np.float32], targets: NDArray[np.intp]) -> float:
    """The weight of WEIGHTS under which the weighted geometric mean of both answers, log-probabilities (B, C), gives
    the targets the highest likelihood."""

    def likelihood(weight: float) -> float:
        mean = (edge + weight * server) / (1 + weight)
        mean = mean - mean.max(1, keepdims=True)
        log_probs = mean - np.log(np.exp(mean).sum(1, keepdims=True))
        return float(log_probs[np.arange(len(targets)), targets].mean())

    return max(WEIGHTS, key=likelihood)


def write_frontier(frontier: FrontierModel, path: Path, note: str) -> None:
    """Writes the YAML file that `sagelink.stages.frontier` reads. `note` says what was measured, on what."""
    content = frontier.model_dump(exclude_none=True)
    for line in content["lines"]:
        line["points"] = {knob: list(values) for knob, values in line["points"].items()}
    header = f"# {note}\n# points: setting of the knob: [median bytes of a message, agreement, weight]\n"
    text = header + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
