"""What a budget costs in accuracy: every selector at every number of units, on pictures of the user's own.

The edge sees each picture once; each row of the result then runs real messages through codec and server. Rows are
complete as they come, so an evaluation that is cut off keeps those that it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from lab import FEWEST
from lab.pictures import Pictures
from lab.rig import Features, Rig
from lab.statistics import Bootstrap, Hits, Interval
from models.vit import Importance
from models.zoo import Model
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.types import Answer, OperatingPoint, Scored, Units
from stages.frontier import find_frontier, read_frontier
from stages.fuse import fuse, weight_of_share
from stages.gate import Gate
from stages.selectors import selector_by_name
from transport.codecs import Canvas

HARD = 0.5  # the edge's top probability, at most
PAPER = ("sage", "last")  # the baseline of paired differences

Progress = Callable[[str, int, int], None]  # what is done, how many are, of how many


@dataclass(frozen=True, slots=True)
class Row:
    """One selector at one number of units. Accuracies are shares; None where there are no such pictures.

    `server_acc` counts the frames that the gate lets out, `fused_acc` all frames; `hard_*` those of either that the
    edge is unsure of. `vs_paper` is the paired difference to paper-form SAGE at the same number of units.
    """

    selector: str
    importance: str
    units: int
    bytes_mean: float
    bytes_max: int
    server_acc: float | None
    fused_acc: float | None
    hard_server_acc: float | None
    hard_fused_acc: float | None
    ci95: dict[str, Interval | None]
    vs_paper: dict[str, tuple[float, Interval] | None]


@dataclass(slots=True)
class Report:
    """What `eval.json` holds."""

    images: int
    truth: str  # labels, or the server's answer on full evidence
    models: dict[str, str]
    gate: str
    offloaded: float
    edge: float
    ceiling: float  # the server's accuracy on full evidence
    fused_ceiling: float
    hard_share: float
    ci95: dict[str, Interval | None]
    rows: list[Row] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    interrupted: bool = False

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def weight_by_units(config: Config, server: Model) -> Callable[[int], float]:
    """The weight that a run would give the server's answer to so many raw units. Raises UsageError."""
    weights, grid = config.fuse.weights, server.grid
    if weights is not None:
        return lambda units: weight_of_share(weights, units / grid.units)
    path = find_frontier(server.name, config.encode.frontier)
    for line in read_frontier(path, Canvas(grid.side, grid.patch_size)):
        if line.base.codec == "raw-zstd":
            return line.weight
    raise UsageError(f"frontier {str(path)!r} has no points of raw-zstd; accepted: one that has, or fuse.weights")


class Evaluation:
    def __init__(self, rig: Rig, config: Config, weight: Callable[[int], float]) -> None:
        """`weight`: of the server's answer by number of units, as in a run."""
        self._rig = rig
        self._config = config
        self._weight = weight

    def see(self, pictures: Pictures, kinds: Sequence[Importance], progress: Progress) -> None:
        """Computes the edge's view of all pictures, and the answers on full evidence. Raises UsageError."""
        self._features: list[Features] = []
        for seen in self._rig.features(pictures, kinds):
            self._features.append(seen)
            progress("edge", len(self._features), len(pictures))
        if len(self._features) < FEWEST:
            raise UsageError(
                f"{len(self._features)} of {len(pictures)} images can be read; accepted: {FEWEST} or more. First: "
                f"{pictures.unreadable[0]}"
            )
        gate = Gate(self._config.gate)
        self._edge = [seen.scored.answer for seen in self._features]
        self._offloaded = np.array([gate.offloads(answer) for answer in self._edge])
        self._hard = np.array([answer.prob <= HARD for answer in self._edge])
        units = self._rig.canvas.units
        everything = np.arange(units)
        point = OperatingPoint("raw-zstd", units, self._rig.canvas.pixels, 0)
        done = 0

        def step(more: int) -> None:
            nonlocal done
            done += more
            progress("server, all units", done, len(self._features))

        full = self._rig.answers((self._message(seen.scored, everything, point) for seen in self._features), step)
        labels = pictures.truth is not None
        self._truth = np.array(
            [
                seen.scored.frame.truth if labels else answer.class_id
                for seen, answer in zip(self._features, full, strict=True)
            ]
        )
        boot = self._boot = Bootstrap.over(len(full), self._config.select.seed)
        best = self._fused(full, units)
        shares = {
            "edge": boot.share(self._hits(self._edge)),
            "ceiling": boot.share(self._hits(full)),
            "fused_ceiling": boot.share(self._hits(best)),
        }
        self.report = Report(
            images=len(full),
            truth="labels" if labels else "server",
            models={"edge": self._rig.pair.edge.name, "server": self._rig.pair.server.name},
            gate=self._config.gate.policy,
            offloaded=float(self._offloaded.mean()),
            hard_share=float(self._hard.mean()),
            ci95={name: share and share[1] for name, share in shares.items()},
            unreadable=list(pictures.unreadable),
            edge=_value(shares["edge"]),
            ceiling=_value(shares["ceiling"]),
            fused_ceiling=_value(shares["fused_ceiling"]),
        )

    def rows(
        self, selectors: Sequence[str], kinds: Sequence[Importance], counts: Sequence[int], progress: Progress
    ) -> Iterator[Row]:
        """Rows as they are measured; each is in the report too."""
        cells = [(s, k, c) for c in counts for k in kinds for s in selectors if k == kinds[0] or uses_importance(s)]
        cells.sort(key=lambda cell: (cell[2], cell[:2] != PAPER))  # the baseline first
        baseline: dict[int, dict[str, Hits]] = {}
        total, done = len(cells) * len(self._features), 0

        def step(more: int) -> None:
            nonlocal done
            done += more
            progress(f"{selector} {kind} {count}", done, total)

        for selector, kind, count in cells:
            sizes: list[int] = []
            server = self._rig.answers(self._messages(selector, kind, count, sizes), step)
            hits = {"server_acc": self._hits(server), "fused_acc": self._hits(self._fused(server, count))}
            if (selector, kind) == PAPER:
                baseline[count] = hits
            row = self._row(selector, kind, count, sizes, hits, baseline.get(count, {}))
            self.report.rows.append(row)
            yield row

    def _messages(self, selector: str, kind: Importance, count: int, sizes: list[int]) -> Iterator[bytes]:
        """The messages; notes their bytes in `sizes`."""
        select, seed = selector_by_name(selector), self._config.select.seed
        point = OperatingPoint("raw-zstd", count, self._rig.canvas.pixels, 0)
        for seen in self._features:
            scored = seen.scored
            order = select(seen.importance[kind], scored.embeddings, count, seed=seed + scored.frame.seq)
            message = self._message(scored, order, point)
            sizes.append(len(message))
            yield message

    def _message(self, scored: Scored, order: Units, point: OperatingPoint) -> bytes:
        return self._rig.encoder.message(scored.frame.seq, scored.picture, order, point)

    def _fused(self, server: Sequence[Answer], units: int) -> list[Answer]:
        """The verdicts: what the gate keeps is the edge's."""
        weight = self._weight(units)
        return [
            fuse(edge, answer, weight) if out else edge
            for edge, answer, out in zip(self._edge, server, self._offloaded, strict=True)
        ]

    def _hits(self, answers: Sequence[Answer]) -> Hits:
        hits: Hits = np.array([answer.class_id for answer in answers]) == self._truth
        return hits

    def _row(
        self,
        selector: str,
        kind: str,
        count: int,
        sizes: list[int],
        hits: dict[str, Hits],
        baseline: dict[str, Hits],
    ) -> Row:
        everybody = np.ones(len(self._truth), bool)
        among = {
            "server_acc": self._offloaded,
            "fused_acc": everybody,
            "hard_server_acc": self._offloaded & self._hard,
            "hard_fused_acc": self._hard,
        }
        shares = {name: self._boot.share(hits[name.removeprefix("hard_")], chosen) for name, chosen in among.items()}
        return Row(
            selector=selector,
            importance=kind if uses_importance(selector) else "none",
            units=count,
            bytes_mean=float(np.mean(sizes)),
            bytes_max=max(sizes),
            ci95={name: share and share[1] for name, share in shares.items()},
            vs_paper={name: self._boot.difference(hits[name], baseline[name], among[name]) for name in baseline},
            **{name: share and share[0] for name, share in shares.items()},
        )


def _value(share: tuple[float, Interval] | None) -> float:
    return share[0] if share else math.nan


def uses_importance(selector: str) -> bool:
    return selector not in ("uniform", "random")
