"""How far an adapted server holds to the stock server's full-frame answers, on frames that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.adaptation import lower_precision
from sagelink.lab.harness import belief, log_probs_of, zoom_crop_of
from sagelink.lab.unlabelled_frames import Footage
from sagelink.models.loading import Model
from sagelink.server.classify import Classifier
from sagelink.server.receive import Received, receive
from sagelink.stages.encoder import Encoder
from sagelink.stages.frontier import RateQualityCurve
from sagelink.transport.codecs import cut_units

SHARES = (0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mean probabilities of the stock server's full-frame answers, as shares of what the full frames give them."""

    sizes: tuple[float, ...]  # at each size of a message
    units: tuple[float, ...]  # with each of SHARES of the units, raw

    @property
    def mean(self) -> float:
        """Over the sizes."""
        return float(np.mean(self.sizes))

    def __str__(self) -> str:
        return " ".join(f"{share:.1%}" for share in self.sizes) + ", " + " ".join(f"{s:.1%}" for s in self.units)


class HeldOut:
    """Frames coded once, as the planner sends them at each size, and as raw units."""

    def __init__(
        self,
        footage: Footage,
        lines: Sequence[RateQualityCurve],
        stock: Model,
        sizes: Sequence[int],
        bf16: bool,
        progress: Callable[[int, int], None],
    ) -> None:
        classifier = Classifier(stock)
        self._bf16 = bf16
        canvas = classifier.canvas
        encoder = Encoder(lines, canvas)
        everything = np.arange(canvas.units)
        full = [Received(0, everything, cut_units(each, everything, canvas.patch_size)) for each in footage.pictures]
        self._full = self._answers(stock, full)
        self._sure = belief(self._full, self._full)
        self._raw = [
            [
                Received(0, units, cut_units(picture, units, canvas.patch_size))
                for picture, order in zip(footage.pictures, footage.orders, strict=True)
                for units in [np.sort(order[: round(share * canvas.units)])]
            ]
            for share in SHARES
        ]
        self._sent: list[list[Received | None]] = []
        for done, size in enumerate(sizes):
            row: list[Received | None] = []
            for frame, picture, order, importance in footage.rows():
                planned = encoder.fit(0, picture, order, size, zoom_crop_of(frame, importance, stock.grid))
                row.append(None if isinstance(planned, int) else receive(planned.message, canvas))
                progress(done * len(footage) + len(row), len(sizes) * len(footage))
            self._sent.append(row)
        self.stock = self.agreement(stock)

    def __len__(self) -> int:
        return len(self._full)

    def agreement(self, model: Model) -> Agreement:
        sizes, units = ([self._share(model, row) for row in rows] for rows in (self._sent, self._raw))
        return Agreement(tuple(sizes), tuple(units))

    def _share(self, model: Model, row: Sequence[Received] | Sequence[Received | None]) -> float:
        """A frame of which no message fits agrees with nothing."""
        there = np.array([received is not None for received in row])
        if not there.any():
            return 0.0
        answers = self._answers(model, [received for received in row if received is not None])
        return belief(answers, self._full[there]) / self._sure * float(there.mean())

    def _answers(self, model: Model, evidence: Sequence[Received]) -> NDArray[np.float32]:
        with lower_precision(model, self._bf16):
            return log_probs_of(Classifier(model), evidence)
