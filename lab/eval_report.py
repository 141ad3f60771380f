"""What an evaluation found: `eval.json`, row by row."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from sagelink.lab.bootstrap import Interval

Difference: TypeAlias = (
    tuple[float, Interval] | None
)  # paired, with its 95 % interval; None where there are no pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to choose or to code evidence. Accuracies are shares; None where there are no such pictures.

    `server_acc` counts the frames that the gate lets out, `fused_acc` all frames; `hard_*` those of either that the
    edge is unsure of.
    """

    bytes_mean: float | None  # of whole messages; None where nothing was sent
    bytes_max: int | None
    server_acc: float | None
    fused_acc: float | None
    hard_server_acc: float | None
    hard_fused_acc: float | None
    ci95: dict[str, Interval | None]
    vs_edge: Difference  # the verdicts' accuracy less that of the edge alone, all frames


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitsRow(Row):
    """A selector at a number of raw units. `vs_paper` is the difference to paper-form SAGE at that number."""

    selector: str
    importance: str
    units: int
    vs_paper: dict[str, Difference]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecRow(Row):
    """A codec under a cap. A frame of which nothing fits has no server answer: a miss, and the edge's verdict.

    `vs_frame` is the difference to the whole-frame codec `best_frame`, of those measured the most accurate at that cap.
    """

    codec: str
    cap_bytes: int
    sent: float | None  # share of the frames that the gate lets out
    best_frame: str | None
    vs_frame: dict[str, Difference]


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
    other_rules: dict[str, float]  # fused on full evidence by: product of both probabilities, their mean
    hard_share: float
    ci95: dict[str, Interval | None]
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
        return asdict(self)
