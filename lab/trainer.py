"""The course of an adaptation: how long it goes on, when it is checked, what is kept, how it is taken up again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from sagelink.lab.adaptation import Student, Weights, mixed
from sagelink.lab.held_out import Agreement, HeldOut
from sagelink.models.loading import Model
from sagelink.pipeline.errors import SagelinkError, UsageError

SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the way from stock to the student
_NOISE = 0.01  # of agreement at one size or share of the units
_CHECKS = 10
_PATIENCE = 4  # checks without a better one


class TrainingObserver(Protocol):
    """Who is told how it goes."""

    def stepped(self, steps: int, loss: float, spent_s: float) -> None: ...

    def checked(self, agreement: Agreement) -> None: ...


@dataclass(frozen=True, slots=True)
class Adapted:
    """What comes out: so much of the way to the student as it was after so many steps, and what it is worth."""

    share: float
    steps: int
    model: Model
    agreement: Agreement


class Trainer:
    def __init__(self, student: Student, stock: Model, held_out: HeldOut, most_bytes: int, limit_s: float) -> None:
        """`most_bytes`: the longest message that is for the adapted weights."""
        self._student = student
        self._stock = stock
        self._held_out = held_out
        self._most_bytes = most_bytes
        self._limit_s = limit_s
        self._spent_s = 0.0
        self._best: Weights = {}
        self._best_mean = -1.0
        self._best_steps = 0
        self._checks: list[float] = []  # mean agreement at each

    def train(
        self, clock: Callable[[], float], stopped: Callable[[], bool], watch: TrainingObserver, keep: Callable[[], None]
    ) -> bool:
        """Learns until the time is spent or nothing gets better; False when it was stopped before.

        `keep` is called after each check. What checks take is not counted.
        """
        before_s = clock()
        while self._spent_s < self._limit_s and not self._settled:
            loss = self._student.step(self._spent_s / self._limit_s)
            now_s = clock()
            self._spent_s, before_s = self._spent_s + now_s - before_s, now_s
            watch.stepped(self._student.steps, loss, self._spent_s)
            if self._spent_s >= self._limit_s * (len(self._checks) + 1) / _CHECKS:
                watch.checked(self._check())
                keep()
                before_s = clock()
            if stopped():
                return False
        if not self._checks:  # taken up with less time than is spent
            watch.checked(self._check())
        return True

    @property
    def _settled(self) -> bool:
        """Whether the latest checks are all below an earlier one."""
        latest = self._checks[-_PATIENCE:]
        return len(self._checks) > _PATIENCE and max(latest) < self._best_mean

    def _check(self) -> Agreement:
        weights = self._student.weights()
        agreement = self._held_out.agreement(self._mixed(weights, 1.0))
        self._checks.append(agreement.mean)
        if agreement.mean >= self._best_mean:
            self._best, self._best_mean, self._best_steps = weights, agreement.mean, self.steps
        return agreement

    def _mixed(self, weights: Weights, share: float) -> Model:
        return mixed(self._stock, weights, share, self._most_bytes)

    def result(self, progress: Callable[[int, int], None]) -> Adapted:
        """The way that agrees most at the sizes. Raises SagelinkError when none is better than stock."""
        tried = []
        for share in SHARES:
            model = self._mixed(self._best, share)
            tried.append(Adapted(share, self._best_steps, model, self._held_out.agreement(model)))
            progress(len(tried), len(SHARES))
        sound = [each for each in tried if self._is_sound(each.agreement)]
        if not sound:
            best = max(tried, key=lambda each: each.agreement.mean)
            raise SagelinkError(
                "nothing is saved: no mixture of stock and adapted weights is better than the stock server on the "
                f"{len(self._held_out)} frames held out. Agreement with its full-frame answers by size of a message, "
                f"and by share of units: stock {self._held_out.stock}, adapted {best.agreement}; more frames or "
                "--minutes may help"
            )
        return max(sound, key=lambda each: each.agreement.mean)

    def _is_sound(self, agreement: Agreement) -> bool:
        stock = self._held_out.stock
        pairs = zip(agreement.sizes + agreement.units, stock.sizes + stock.units, strict=True)
        return agreement.mean > stock.mean and all(own >= theirs - _NOISE for own, theirs in pairs)

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Writes where the course stands; a file that is cut short never takes the place of a whole one."""
        state = {
            "identity": identity,
            "student": self._student.state(),
            "spent_s": self._spent_s,
            "best": self._best,
            "best_mean": self._best_mean,
            "best_steps": self._best_steps,
            "checks": self._checks,
        }
        partial = path.with_name(path.name + ".partial")
        try:
            torch.save(state, partial)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
            partial.unlink(missing_ok=True)
            raise SagelinkError(f"{str(path)!r} cannot be written: {str(error).splitlines()[0]}") from None

    def resume(self, path: Path, identity: dict[str, Any]) -> None:
        """Goes on where `save` was called. Raises UsageError for a file of something else."""
        try:
            state = torch.load(path, map_location=self._stock.mean.device, weights_only=True)
            other = [key for key, value in identity.items() if state["identity"].get(key) != value]
            if not other:
                self._student.restore(state["student"])
                self._spent_s, self._checks = state["spent_s"], state["checks"]
                self._best, self._best_mean = state["best"], state["best_mean"]
                self._best_steps = state["best_steps"]
        except Exception as error:  # whatever a file that is none makes of torch's unpickler
            raise UsageError(
                f"{str(path)!r} is not a state of an adaptation ({type(error).__name__}); delete it to begin anew"
            ) from None
        if other:
            raise UsageError(
                f"{str(path)!r} is the state of an interrupted adaptation with another {other[0]}: "
                f"{state['identity'].get(other[0])!r}, here {identity[other[0]]!r}; delete it to begin anew, or name "
                "another --out"
            )

    @property
    def steps(self) -> int:
        return self._student.steps
