"""Agreement of an adapted server with the stock server on held-out frames, which training did not use.

In: a server model. Out: `Agreement`, at several message sizes and several shares of the units. The stock server's
answers on full frames are the reference. Frames are encoded once, by the stock model's frontier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sagelink.lab.adapt.adaptation import lower_precision
from sagelink.lab.adapt.unlabelled_frames import AdaptationFrames
from sagelink.lab.harness import full_evidence, mean_full_frame_prob, server_log_probs, zoom_crop_of
from sagelink.models.loading import Model
from sagelink.server.classify import Classifier
from sagelink.server.receive import Received, receive
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier import RateQualityCurve
from sagelink.transport.codecs import Canvas, cut_units

UNIT_SHARES = (0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mean probability of the stock server's full-frame class, as a share of its probability on full frames."""

    sizes: tuple[float, ...]  # one per message size
    units: tuple[float, ...]  # one per share in UNIT_SHARES, raw units

    @property
    def mean(self) -> float:
        """Mean over the message sizes."""
        return float(np.mean(self.sizes))

    def __str__(self) -> str:
        return " ".join(f"{share:.1%}" for share in self.sizes) + ", " + " ".join(f"{s:.1%}" for s in self.units)


class HeldOut:
    """Held-out frames, encoded at each message size and as raw units."""

    def __init__(
        self,
        frames: AdaptationFrames,
        curves: Sequence[RateQualityCurve],
        stock: Model,
        sizes: Sequence[int],
        bf16: bool,
        progress: Callable[[int, int], None],
    ) -> None:
        """`sizes`: message limits in bytes; `progress` gets the number of encoded messages and their total."""
        self._bf16 = bf16
        canvas = Classifier(stock).canvas
        self._full = self._answers(stock, [full_evidence(picture, canvas) for picture in frames.pictures])
        self._full_prob = mean_full_frame_prob(self._full, self._full)
        self._raw = [_best_units(frames, canvas, share) for share in UNIT_SHARES]
        encoder = Encoder(curves, canvas)
        self._encoded: list[list[Received | None]] = []  # by size, then frame; None if no message fits
        for finished, size in enumerate(sizes):
            row: list[Received | None] = []
            for padded_view, picture, order, importance in frames.rows():
                plan = encoder.fit(0, picture, order, size, zoom_crop_of(padded_view, importance, stock.grid))
                row.append(None if isinstance(plan, int) else receive(plan.message, canvas))
                progress(finished * len(frames) + len(row), len(sizes) * len(frames))
            self._encoded.append(row)
        self.stock = self.agreement(stock)

    def __len__(self) -> int:
        return len(self._full)

    def agreement(self, model: Model) -> Agreement:
        sizes, units = ([self._share(model, row) for row in rows] for rows in (self._encoded, self._raw))
        return Agreement(tuple(sizes), tuple(units))

    def _share(self, model: Model, row: Sequence[Received] | Sequence[Received | None]) -> float:
        """Agreement on one row of evidence; a frame without a message counts as 0."""
        fitted = np.array([received is not None for received in row])
        if not fitted.any():
            return 0.0
        answers = self._answers(model, [received for received in row if received is not None])
        return mean_full_frame_prob(answers, self._full[fitted]) / self._full_prob * float(fitted.mean())

    def _answers(self, model: Model, evidence: Sequence[Received]) -> NDArray[np.float32]:
        with lower_precision(model, self._bf16):
            return server_log_probs(Classifier(model), evidence)


def _best_units(frames: AdaptationFrames, canvas: Canvas, share: float) -> list[Received]:
    """The best `share` of each frame's units, as raw pixels."""
    evidence = []
    for picture, order in zip(frames.pictures, frames.orders, strict=True):
        units = np.sort(order[: round(share * canvas.units)])
        evidence.append(Received(0, units, cut_units(picture, units, canvas.patch_size)))
    return evidence
