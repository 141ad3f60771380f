"""Training loop of server adaptation: time limit, checks on held-out frames, choice of the result, interruption.

In: a `Student` and held-out frames. Out: `Adapted`, the mixture of stock and student weights with the best agreement,
and a state file from which an interrupted training continues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from sagelink.lab.adapt.adaptation import Student, Weights, mixed
from sagelink.lab.adapt.held_out import Agreement, HeldOut
from sagelink.models.loading import Model
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.files.private_files import replacing

MIX_SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # 0: stock weights, 1: student weights
_TOLERANCE = 0.01  # agreement may fall by this much at one message size or share of the units
_CHECKS = 10  # during the whole time limit
_PATIENCE = 4  # checks without an improvement end the training


class TrainingObserver(Protocol):
    """Receives the progress of a training."""

    def on_step(self, steps: int, loss: float, spent_s: float) -> None: ...

    def on_check(self, agreement: Agreement) -> None: ...


@dataclass(frozen=True, slots=True)
class Adapted:
    """Result of a training: a mixture of stock weights and the student's weights after `steps` steps."""

    share: float  # of the student's weights, 0 to 1
    steps: int
    model: Model
    agreement: Agreement


class Trainer:
    def __init__(self, student: Student, stock: Model, held_out: HeldOut, max_bytes: int, limit_s: float) -> None:
        """`max_bytes`: longest message that the adapted weights answer; `limit_s`: training time without checks."""
        self._student = student
        self._stock = stock
        self._held_out = held_out
        self._max_bytes = max_bytes
        self._limit_s = limit_s
        self._spent_s = 0.0
        self._best: Weights = {}
        self._best_mean = -1.0
        self._best_steps = 0
        self._check_means: list[float] = []  # mean agreement of each check

    @property
    def steps(self) -> int:
        return self._student.steps

    def train(
        self,
        clock: Callable[[], float],
        stop_requested: Callable[[], bool],
        observer: TrainingObserver,
        save_state: Callable[[], None],
    ) -> bool:
        """Trains until the time limit, or until the agreement stops improving; False if a stop was requested earlier.

        `clock` returns seconds. `save_state` is called after each check. Time spent in checks does not count.
        """
        before_s = clock()
        while self._spent_s < self._limit_s and not self._stopped_improving:
            loss = self._student.step(self._spent_s / self._limit_s)
            now_s = clock()
            self._spent_s, before_s = self._spent_s + now_s - before_s, now_s
            observer.on_step(self._student.steps, loss, self._spent_s)
            if self._spent_s >= self._limit_s * (len(self._check_means) + 1) / _CHECKS:
                observer.on_check(self._check())
                save_state()
                before_s = clock()
            if stop_requested():
                return False
        if not self._check_means:  # resumed with a time limit that was already spent
            observer.on_check(self._check())
        return True

    @property
    def _stopped_improving(self) -> bool:
        latest = self._check_means[-_PATIENCE:]
        return len(self._check_means) > _PATIENCE and max(latest) < self._best_mean

    def _check(self) -> Agreement:
        weights = self._student.weights()
        agreement = self._held_out.agreement(self._mixed(weights, 1.0))
        self._check_means.append(agreement.mean)
        if agreement.mean >= self._best_mean:
            self._best, self._best_mean, self._best_steps = weights, agreement.mean, self.steps
        return agreement

    def _mixed(self, weights: Weights, share: float) -> Model:
        return mixed(self._stock, weights, share, self._max_bytes)

    def result(self, progress: Callable[[int, int], None]) -> Adapted:
        """The mixture with the highest mean agreement. Raises SagelinkError if none is better than the stock server."""
        candidates = []
        for share in MIX_SHARES:
            model = self._mixed(self._best, share)
            candidates.append(Adapted(share, self._best_steps, model, self._held_out.agreement(model)))
            progress(len(candidates), len(MIX_SHARES))
        improved = [each for each in candidates if self._is_improvement(each.agreement)]
        if not improved:
            best = max(candidates, key=lambda each: each.agreement.mean)
            raise SagelinkError(
                "nothing is saved: no mixture of stock and adapted weights is better than the stock server on the "
                f"{len(self._held_out)} held-out frames. Agreement with its full-frame answers by message size and by "
                f"share of units: stock {self._held_out.stock}, adapted {best.agreement}; more frames or "
                "more --minutes may help"
            )
        return max(improved, key=lambda each: each.agreement.mean)

    def _is_improvement(self, agreement: Agreement) -> bool:
        """Better on the mean of the sizes, and nowhere worse by more than the tolerance."""
        stock = self._held_out.stock
        pairs = zip(agreement.sizes + agreement.units, stock.sizes + stock.units, strict=True)
        return agreement.mean > stock.mean and all(own >= theirs - _TOLERANCE for own, theirs in pairs)

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Writes the state file in one step; an interrupted write leaves the old file.

        `identity`: the inputs of the training, which `resume` compares. Raises SagelinkError.
        """
        state = {
            "identity": identity,
            "student": self._student.state(),
            "spent_s": self._spent_s,
            "best": self._best,
            "best_mean": self._best_mean,
            "best_steps": self._best_steps,
            "checks": self._check_means,
        }
        try:
            with replacing(path) as unfinished, unfinished.open("wb") as file:
                torch.save(state, file)
        except OSError as error:
            raise cannot_write(path, error) from None
        except RuntimeError as error:  # torch hides the error of the disk behind its own
            full = error.__context__
            raise cannot_write(path, full if isinstance(full, OSError) else error) from None

    def resume(self, path: Path, identity: dict[str, Any]) -> None:
        """Continues from a state file of `save`. Raises UsageError for a damaged file or another identity."""
        try:
            state = torch.load(path, map_location=self._stock.mean.device, weights_only=True)
            different = [key for key, value in identity.items() if state["identity"].get(key) != value]
            if not different:
                self._student.restore(state["student"])
                self._spent_s, self._check_means = state["spent_s"], state["checks"]
                self._best, self._best_mean = state["best"], state["best_mean"]
                self._best_steps = state["best_steps"]
        except Exception as error:  # torch's unpickler raises many types for a file of another format
            raise UsageError(
                f"{str(path)!r} is not a state of an adaptation ({type(error).__name__}); delete it to start again"
            ) from None
        if different:
            key = different[0]
            raise UsageError(
                f"{str(path)!r} is the state of an interrupted adaptation with another {key}: "
                f"{state['identity'].get(key)!r}, here {identity[key]!r}; delete it to start again, or choose another "
                "--out"
            )
