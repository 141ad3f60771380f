"""The result of an evaluation, as written to `eval.json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from sagelink.lab.bootstrap_intervals import Interval

# Paired difference of two accuracies with its 95 % interval; None without images
Difference: TypeAlias = tuple[float, Interval] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to select or encode evidence. Accuracies are shares, None without images.

    `server_acc` is about the frames that the gate offloads, `fused_acc` about all frames. `hard_*` are restricted to
    frames with an uncertain edge answer.
    """

    bytes_mean: float | None  # of whole messages; None if nothing was sent
    bytes_max: int | None
    server_acc: float | None
    fused_acc: float | None
    hard_server_acc: float | None
    hard_fused_acc: float | None
    ci95: dict[str, Interval | None]
    vs_edge: Difference  # accuracy of the verdicts minus that of the edge alone, all frames


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitsRow(Row):
    """A selector at a number of raw units. `vs_paper`: difference to SAGE as in the paper at the same number."""

    selector: str
    importance: str
    units: int
    vs_paper: dict[str, Difference]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecRow(Row):
    """A codec under a cap. A frame without a fitting message is a miss of the server and keeps the edge's answer.

    `vs_frame`: difference to `best_frame`, the most accurate whole-frame codec at the same cap.
    """

    codec: str
    cap_bytes: int
    sent: float | None  # share of the offloaded frames for which a message fits
    best_frame: str | None
    vs_frame: dict[str, Difference]
    ece: float | None  # expected calibration error of the verdicts; None without labels


@dataclass(frozen=True, slots=True)
class AnswerQuality:
    """Figures of verdicts on labelled pictures."""

    ece: float  # expected calibration error, ten bins of equal mass
    per_class: dict[str, float]  # share of right verdicts, by class
    confusion: list[list[int]] | None  # counts by true class (row) and verdict (column); None for many classes


@dataclass(slots=True)
class Report:
    """The content of `eval.json`."""

    images: int
    truth: str  # `labels`, or `server`: its answer on all units
    models: dict[str, str]
    gate: str
    offloaded: float
    edge: float
    ceiling: float  # accuracy of the server on all units
    fused_ceiling: float
    other_rules: dict[str, float]  # accuracy on all units if fused by `product` or `mean` of probabilities
    hard_share: float
    ci95: dict[str, Interval | None]
    unknown: float = 0.0  # share of the images that the head calls none of its classes
    auroc: float | None = None  # of the rule for unknown pictures, against foreign ones; None without these
    foreign_unknown: float | None = None  # share of the foreign pictures that the head calls none of its classes
    quality: AnswerQuality | None = None  # at the smallest size with `auto`, else on all units; None without labels
    rows: list[UnitsRow | CodecRow] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def units_rows(self) -> list[UnitsRow]:
        return [row for row in self.rows if isinstance(row, UnitsRow)]

    @property
    def codec_rows(self) -> list[CodecRow]:
        return [row for row in self.rows if isinstance(row, CodecRow)]

    def as_dict(self) -> dict[str, object]:
        """`quality` is written as `ece`, `per_class` and `confusion`."""
        values = asdict(self)
        quality = values.pop("quality") or {}
        return values | {key: quality.get(key) for key in ("ece", "per_class", "confusion")}
