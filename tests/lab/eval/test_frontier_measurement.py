"""Frontier measurement with the demo server."""

from __future__ import annotations

import numpy as np
import pytest

from sagelink.lab.eval.frontier_measurement import (
    FULL_WEIGHT,
    WEIGHTS,
    Sweep,
    best_weight,
    measure,
    plan_curves,
    write_frontier,
)
from sagelink.lab.harness import Sample
from sagelink.models.loading import Model
from sagelink.models.preprocess import make_picture
from sagelink.pipeline.types import OperatingPoint
from sagelink.server.classify import Classifier
from sagelink.stages.frontier import read_frontier
from sagelink.stages.sources.synthetic import SyntheticSource
from sagelink.transport.codecs import Canvas, codec_names


def log_probs(rows: list[list[float]]) -> np.ndarray:
    return np.log(np.array(rows, np.float32))


def test_the_weight_follows_the_side_that_is_right():
    right = log_probs([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    flat = log_probs([[0.34, 0.33, 0.33]] * 3)
    wrong = right[::-1]
    targets = np.array([0, 1, 2])
    assert best_weight(right, wrong, targets) == 0
    assert best_weight(right, flat, targets) == 0
    assert best_weight(flat, right, targets) == max(WEIGHTS)
    edge = log_probs([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.4, 0.3, 0.3]])  # wrong about the last
    server = log_probs([[0.2, 0.6, 0.2], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]])  # wrong about the first
    assert 0 < best_weight(edge, server, targets) < max(WEIGHTS)


def test_every_codec_is_measured():
    canvas = Canvas(14, 16)
    points = [point for _, points in plan_curves(canvas) for point in points]
    assert {point.codec for point in points} == set(codec_names())
    assert len(points) == len(set(points))
    assert all(1 <= point.units <= 196 and 16 <= point.side <= 224 for point in points)


def test_a_measured_frontier_is_a_file_that_the_planner_reads(demo_server: Model, tmp_path):
    classifier = Classifier(demo_server)
    canvas = classifier.canvas
    rng = np.random.default_rng(0)
    samples = []
    for frame in SyntheticSource(6, seed=3, hold=1):
        picture = make_picture(frame.pixels, 112, "squash", "bicubic")
        edge = log_probs([rng.dirichlet(np.ones(16))])[0]
        padded_view = make_picture(frame.pixels, 160, "squash", "bicubic")
        importance = rng.random(196, np.float32)
        samples.append(Sample(picture, rng.permutation(196), edge, padded_view, importance, frame.truth))
    sweeps = (
        Sweep("avif", (10, 60, 90), sides=(0.5, 1.0)),
        Sweep("avif-frame", (10, 60, 90)),
        Sweep("avif", (10, 60), views=(0.5,)),
    )
    progress: list[tuple[int, int]] = []
    plans = [plan for plan in plan_curves(canvas, sweeps) if plan[0].codec in ("avif", "avif-frame", "raw-zstd")]
    measured = measure(samples, classifier, plans, lambda done, total: progress.append((done, total)))
    assert progress[-1] == (18, 18)
    path = tmp_path / "frontier.yaml"
    write_frontier(measured, path, "a test")
    half, whole, file, zoom, raw = read_frontier(path, canvas)
    assert (half.point.side, whole.point.side, raw.knob) == (56, 112, "units")
    assert raw.agreements[-1] == 1.0  # all units, lossless: the full frame
    assert raw.settings[-1] == 196
    assert (file.agreements == whole.agreements).all()  # both decode to the same picture
    assert (file.sizes > whole.sizes + 250).all()
    assert (half.sizes < whole.sizes).all()
    assert [curve.point.view for curve in (half, whole, file, zoom, raw)] == [1, 1, 1, 0.5, 1]
    assert zoom.at(60) == OperatingPoint("avif", 196, 112, 60, 0.5)
    assert zoom.agreements[-1] < whole.agreements[-1]  # importance is random here, so a zoom crop only loses content


@pytest.mark.parametrize("known", [True, False])
def test_labels_decide_the_weight_if_they_are_known(demo_server: Model, known: bool):
    """An edge that is certain and right with labels, and an edge that knows nothing without labels."""
    classifier = Classifier(demo_server)
    edge = log_probs([[0.97] + [0.002] * 15 if known else [1 / 16] * 16])[0]
    samples = [
        Sample(picture, np.arange(196), edge, picture, np.ones(196, np.float32), 0 if known else None)
        for frame in SyntheticSource(4, seed=5, hold=1)
        for picture in [make_picture(frame.pixels, 112, "squash", "bicubic")]
    ]
    plans = [plan for plan in plan_curves(classifier.canvas, ()) if plan[0].codec == "raw-zstd"]
    (curve,) = measure(samples, classifier, plans).lines
    *_, (_, _, weight) = curve.points.values()
    assert weight == (0.0 if known else FULL_WEIGHT)
