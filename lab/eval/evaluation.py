"""Accuracy of edge, server and fused answers on your own images, with paired confidence intervals.

In: images and a configuration. Out: a `Report` without rows, and the functions that compute the figures of a row from
server answers. The edge model runs once per image; each row then passes real messages through codec and server model.
`accuracy_by_units` makes the rows of selectors, `accuracy_by_bytes` those of codecs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sagelink.lab import MIN_IMAGES
from sagelink.lab.bootstrap_intervals import Bootstrap, Hits, Interval
from sagelink.lab.dataset import ImageSet
from sagelink.lab.eval.report import AnswerQuality, Difference, Report
from sagelink.lab.harness import EdgeFeatures, Harness
from sagelink.lab.probabilities import calibration_error
from sagelink.lab.progress_bar import ShowProgress, step_counter
from sagelink.models.loading import Model
from sagelink.models.model_contract import Importance, own_bits
from sagelink.pipeline.answers import Answer
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import OperatingPoint, Scored, Units
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.frontier import find_frontier, read_frontier
from sagelink.stages.fuse import fuse, weight_of_share
from sagelink.transport.codecs import Canvas

_MAX_CONFUSION = 100  # classes: a larger table would not be read
HARD_MAX_PROB = 0.5  # an image is hard if the edge's top probability is at most this

Share = tuple[float, Interval] | None  # a share with its 95 % interval; None without images


def weight_by_units(config: Config, server: Model) -> Callable[[int], float]:
    """Returns a function from a number of raw units to the fusion weight that a run would use. Raises UsageError."""
    weights, grid = config.fuse.weights, server.grid
    if weights is not None:
        return lambda units: weight_of_share(weights, units / grid.units)
    path = find_frontier(server.name, config.encode.frontier, config.server.checkpoint)
    for curve in read_frontier(path, Canvas(grid.side, grid.patch_size)):
        if curve.point.codec == "raw-zstd":
            if server.head is not None:
                curve = replace(curve, weights=server.head.fusion_weight(curve.sizes))
            return curve.weight
    raise UsageError(f"frontier {str(path)!r} has no points of raw-zstd; accepted: one that has, or fuse.weights")


class Evaluation:
    """Call `score_images` first; then `report` and the other methods are available."""

    def __init__(self, harness: Harness, config: Config, weight: Callable[[int], float]) -> None:
        """`weight`: fusion weight of the server's answer by number of raw units, see `weight_by_units`."""
        self.harness = harness
        self.config = config
        self.weight = weight
        self.features: list[EdgeFeatures] = []

    def score_images(self, images: ImageSet, kinds: Sequence[Importance], progress: ShowProgress) -> None:
        """Computes the edge features of all images and the server's answers on all units.

        Raises UsageError if fewer than MIN_IMAGES can be read.
        """
        for features in self.harness.features(images, kinds):
            self.features.append(features)
            progress("edge", len(self.features), len(images))
        if len(self.features) < MIN_IMAGES:
            raise UsageError(
                f"{len(self.features)} of {len(images)} images can be read; accepted: {MIN_IMAGES} or more. First: "
                f"{images.unreadable[0]}"
            )
        gate = Gate(self.config.gate, own_bits(self.harness.pair.edge))
        self._edge = [features.scored.answer for features in self.features]
        self.offloaded: Hits = np.array([gate.offloads(answer) for answer in self._edge])
        self._hard: Hits = np.array([answer.prob <= HARD_MAX_PROB for answer in self._edge])
        step = step_counter("server, all units", len(self.features), progress)
        scored = [features.scored for features in self.features]
        full = self.harness.answers((self.harness.full_message(s.frame.seq, s.picture) for s in scored), step)
        self._labelled = labelled = images.truth is not None
        self._truth = np.array(
            [s.frame.truth if labelled else answer.class_id for s, answer in zip(scored, full, strict=True)]
        )
        self._bootstrap = Bootstrap.over(len(full), self.config.select.seed)
        self.report = self._report(full, labelled, images.unreadable)

    def _report(self, full: Sequence[Answer], labelled: bool, unreadable: Sequence[str]) -> Report:
        """The figures of the edge and of the server on all units, without rows."""
        weights = [self.weight(self.harness.canvas.units)] * len(full)
        best = self.hits(full, weights)
        shares = {
            "edge": self._bootstrap.share(self._right(self._edge)),
            "ceiling": self._bootstrap.share(best["server_acc"]),
            "fused_ceiling": self._bootstrap.share(best["fused_acc"]),
        }
        return Report(
            images=len(full),
            truth="labels" if labelled else "server",
            models={"edge": self.harness.pair.edge.name, "server": self.harness.pair.server.name},
            gate=self.config.gate.policy,
            offloaded=float(self.offloaded.mean()),
            other_rules={
                "product": float(self.hits(full, [1.0] * len(full))["fused_acc"].mean()),
                "mean": float(self._right(self._mean_answers(full)).mean()),
            },
            hard_share=float(self._hard.mean()),
            ci95=intervals(shares),
            unreadable=list(unreadable),
            unknown=float(np.mean([features.scored.unknown for features in self.features])),
            quality=self.quality(self.verdicts(full, weights)),
            rows=[],
            interrupted=False,
            **{name: math.nan if share is None else share[0] for name, share in shares.items()},
        )

    def compare_foreign(self, images: ImageSet, progress: ShowProgress) -> None:
        """How well the head tells foreign pictures, which show none of its classes, from the scored ones."""
        foreign = []
        for features in self.harness.features(images, [self.config.select.importance]):
            foreign.append(features.scored.novelty)
            progress("foreign pictures", len(foreign), len(images))
        if not foreign:
            raise UsageError(f"no foreign picture can be read. First: {images.unreadable[0]}")
        known = np.array([features.scored.novelty for features in self.features])
        self.report.auroc = area_under_roc(known, np.array(foreign))
        self.report.foreign_unknown = float((np.array(foreign) > 1).mean())

    def message(self, scored: Scored, order: Units, point: OperatingPoint) -> bytes:
        """The evidence message of an image at an operating point."""
        return self.harness.encoder.message(scored.frame.seq, scored.picture, order, point)

    def hits(self, server: Sequence[Answer | None], weights: Sequence[float]) -> dict[str, Hits]:
        """Whether the server's answers (`server_acc`) and the verdicts (`fused_acc`) are right, per image.

        The verdict is the edge's answer if the gate does not offload the image or the server has no answer. An image
        without a server answer is a miss of the server.
        """
        return {"server_acc": self._right(server), "fused_acc": self._right(self.verdicts(server, weights))}

    def verdicts(self, server: Sequence[Answer | None], weights: Sequence[float]) -> list[Answer]:
        """The verdict on each image; arguments as in `hits`."""
        head = self.harness.pair.server.head
        overlap = 0.0 if head is None else head.card.overlap
        return [
            fuse(edge, answer, weight, overlap) if offloaded and answer else edge
            for edge, answer, weight, offloaded in zip(self._edge, server, weights, self.offloaded, strict=True)
        ]

    def quality(self, verdicts: Sequence[Answer]) -> AnswerQuality | None:
        """Calibration and errors by class; None without labels."""
        if not self._labelled:
            return None
        right, names = self._right(verdicts), self.harness.pair.edge.labels
        counts = None
        if len(names) <= _MAX_CONFUSION:
            counts = [[0] * len(names) for _ in names]
            for truth, answer in zip(self._truth, verdicts, strict=True):
                counts[truth][answer.class_id] += 1
        return AnswerQuality(
            ece=calibration_error(np.array([answer.prob for answer in verdicts]), right),
            per_class={names[c]: float(right[self._truth == c].mean()) for c in np.unique(self._truth)},
            confusion=counts,
        )

    def shares(self, hits: Mapping[str, Hits]) -> dict[str, Share]:
        """The four accuracies of a row from the result of `hits`."""
        subsets = {
            "server_acc": self.offloaded,
            "fused_acc": np.ones(len(self._truth), bool),
            "hard_server_acc": self.offloaded & self._hard,
            "hard_fused_acc": self._hard,
        }
        return {
            name: self._bootstrap.share(hits[name.removeprefix("hard_")], subset) for name, subset in subsets.items()
        }

    def differences(self, hits: Mapping[str, Hits], baseline: Mapping[str, Hits]) -> dict[str, Difference]:
        """Accuracies minus those of a baseline on the same images. Both are results of `hits`."""
        subsets = {"server_acc": self.offloaded, "fused_acc": None}
        return {name: self._bootstrap.difference(hits[name], baseline[name], subsets[name]) for name in baseline}

    def gain(self, hits: Mapping[str, Hits]) -> Difference:
        """Accuracy of the verdicts minus that of the edge alone."""
        return self._bootstrap.difference(hits["fused_acc"], self._right(self._edge))

    def _mean_answers(self, full: Sequence[Answer]) -> list[Answer]:
        """Verdicts by the mean of both sides' probabilities."""
        return [
            Answer.from_log_scores(np.logaddexp(edge.log_probs, answer.log_probs)) if offloaded else edge
            for edge, answer, offloaded in zip(self._edge, full, self.offloaded, strict=True)
        ]

    def _right(self, answers: Sequence[Answer | None]) -> Hits:
        right: Hits = np.array([-1 if answer is None else answer.class_id for answer in answers]) == self._truth
        return right


def area_under_roc(known: NDArray[np.float64], foreign: NDArray[np.float64]) -> float:
    """Probability that a foreign picture has a higher score than a known one; equal scores count half."""
    ranks = np.sort(known)
    below, up_to = np.searchsorted(ranks, foreign, "left"), np.searchsorted(ranks, foreign, "right")
    return float((below + up_to).mean() / (2 * len(known)))


def intervals(shares: Mapping[str, Share]) -> dict[str, Interval | None]:
    return {name: share and share[1] for name, share in shares.items()}


def values(shares: Mapping[str, Share]) -> dict[str, float | None]:
    return {name: share and share[0] for name, share in shares.items()}
