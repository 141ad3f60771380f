"""What a budget costs in accuracy, on pictures of the user's own.

The edge sees each picture once; each row of the result then runs real messages through codec and server. Rows are
complete as they come, so an evaluation that is cut off keeps those that it has. `by_units` compares selectors at
numbers of raw units, `by_bytes` codecs under caps in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sagelink.lab import FEWEST
from sagelink.lab.bootstrap import Bootstrap, Hits, Interval
from sagelink.lab.dataset import Pictures
from sagelink.lab.eval_report import Difference, Report
from sagelink.lab.harness import EdgeFeatures, Harness
from sagelink.models.loading import Model
from sagelink.models.vit import Importance
from sagelink.pipeline.config import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Answer, OperatingPoint, Scored, Units
from sagelink.stages.confidence_gate import Gate
from sagelink.stages.frontier import find_frontier, read_frontier
from sagelink.stages.fuse import fuse, weight_of_share
from sagelink.transport.codecs import Canvas

HARD = 0.5  # the edge's top probability, at most

Share = tuple[float, Interval] | None  # with its 95 % interval; None where there are no pictures
Progress = Callable[[str, int, int], None]  # what is done, how many are, of how many


def weight_by_units(config: Config, server: Model) -> Callable[[int], float]:
    """The weight that a run would give the server's answer to so many raw units. Raises UsageError."""
    weights, grid = config.fuse.weights, server.grid
    if weights is not None:
        return lambda units: weight_of_share(weights, units / grid.units)
    path = find_frontier(server.name, config.encode.frontier, config.server.checkpoint)
    for line in read_frontier(path, Canvas(grid.side, grid.patch_size)):
        if line.point.codec == "raw-zstd":
            return line.weight
    raise UsageError(f"frontier {str(path)!r} has no points of raw-zstd; accepted: one that has, or fuse.weights")


class Evaluation:
    def __init__(self, harness: Harness, config: Config, weight: Callable[[int], float]) -> None:
        """`weight`: of the server's answer by number of raw units, as in a run."""
        self.harness = harness
        self.config = config
        self.weight = weight
        self.features: list[EdgeFeatures] = []

    def see(self, pictures: Pictures, kinds: Sequence[Importance], progress: Progress) -> None:
        """Computes the edge's view of all pictures, and the answers on full evidence. Raises UsageError."""
        for seen in self.harness.features(pictures, kinds):
            self.features.append(seen)
            progress("edge", len(self.features), len(pictures))
        if len(self.features) < FEWEST:
            raise UsageError(
                f"{len(self.features)} of {len(pictures)} images can be read; accepted: {FEWEST} or more. First: "
                f"{pictures.unreadable[0]}"
            )
        gate = Gate(self.config.gate)
        self._edge = [seen.scored.answer for seen in self.features]
        self.offloaded = np.array([gate.offloads(answer) for answer in self._edge])
        self._hard = np.array([answer.prob <= HARD for answer in self._edge])
        units = self.harness.canvas.units
        everything = np.arange(units)
        point = OperatingPoint("raw-zstd", units, self.harness.canvas.pixels, 0)
        step = counter("server, all units", len(self.features), progress)
        full = self.harness.answers((self.message(seen.scored, everything, point) for seen in self.features), step)
        labels = pictures.truth is not None
        self._truth = np.array(
            [
                seen.scored.frame.truth if labels else answer.class_id
                for seen, answer in zip(self.features, full, strict=True)
            ]
        )
        boot = self._boot = Bootstrap.over(len(full), self.config.select.seed)
        best = self.hits(full, [self.weight(units)] * len(full))
        shares = {
            "edge": boot.share(self._right(self._edge)),
            "ceiling": boot.share(best["server_acc"]),
            "fused_ceiling": boot.share(best["fused_acc"]),
        }
        self.report = Report(
            images=len(full),
            truth="labels" if labels else "server",
            models={"edge": self.harness.pair.edge.name, "server": self.harness.pair.server.name},
            gate=self.config.gate.policy,
            offloaded=float(self.offloaded.mean()),
            other_rules={
                "product": float(self.hits(full, [1.0] * len(full))["fused_acc"].mean()),
                "mean": float(self._right(self._means(full)).mean()),
            },
            hard_share=float(self._hard.mean()),
            ci95=intervals(shares),
            unreadable=list(pictures.unreadable),
            rows=[],
            interrupted=False,
            **{name: math.nan if share is None else share[0] for name, share in shares.items()},
        )

    def message(self, scored: Scored, order: Units, point: OperatingPoint) -> bytes:
        return self.harness.encoder.message(scored.frame.seq, scored.picture, order, point)

    def hits(self, server: Sequence[Answer | None], weights: Sequence[float]) -> dict[str, Hits]:
        """Whether the server's answers and the verdicts are right. What the gate keeps, and frames that the server has
        no answer to, have the edge's verdict; having no answer is not being right."""
        verdicts = [
            fuse(edge, answer, weight) if out and answer else edge
            for edge, answer, weight, out in zip(self._edge, server, weights, self.offloaded, strict=True)
        ]
        return {"server_acc": self._right(server), "fused_acc": self._right(verdicts)}

    def shares(self, hits: Mapping[str, Hits]) -> dict[str, Share]:
        """The four accuracies of a row, of what `hits` gives."""
        everybody = np.ones(len(self._truth), bool)
        among = {
            "server_acc": self.offloaded,
            "fused_acc": everybody,
            "hard_server_acc": self.offloaded & self._hard,
            "hard_fused_acc": self._hard,
        }
        return {name: self._boot.share(hits[name.removeprefix("hard_")], chosen) for name, chosen in among.items()}

    def differences(self, hits: Mapping[str, Hits], baseline: Mapping[str, Hits]) -> dict[str, Difference]:
        """How much better than a baseline, on the same pictures."""
        among = {"server_acc": self.offloaded, "fused_acc": None}
        return {name: self._boot.difference(hits[name], baseline[name], among[name]) for name in baseline}

    def gain(self, hits: Mapping[str, Hits]) -> Difference:
        """How much better the verdicts are than the edge alone."""
        return self._boot.difference(hits["fused_acc"], self._right(self._edge))

    def _means(self, full: Sequence[Answer]) -> list[Answer]:
        """Verdicts by the mean of both sides' probabilities."""
        return [
            Answer.from_log_scores(np.logaddexp(edge.log_probs, answer.log_probs)) if out else edge
            for edge, answer, out in zip(self._edge, full, self.offloaded, strict=True)
        ]

    def _right(self, answers: Sequence[Answer | None]) -> Hits:
        right: Hits = np.array([-1 if answer is None else answer.class_id for answer in answers]) == self._truth
        return right


def counter(what: str, total: int, progress: Progress) -> Callable[[int], None]:
    """Tells `progress` how much is done in all, from how much more is."""
    done = 0

    def step(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return step


def intervals(shares: Mapping[str, Share]) -> dict[str, Interval | None]:
    return {name: share and share[1] for name, share in shares.items()}


def values(shares: Mapping[str, Share]) -> dict[str, float | None]:
    return {name: share and share[0] for name, share in shares.items()}
