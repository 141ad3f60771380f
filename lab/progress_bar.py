"""Progress of long work with the remaining time: a live bar on a terminal, otherwise a plain line every 5 s."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from sagelink.pipeline.quantities import format_duration
from sagelink.pipeline.text import one_line

_PLAIN_EVERY_S = 5.0

ShowProgress: TypeAlias = Callable[[str, int, int], None]  # name of the work, steps done, steps in total


class ProgressBar:
    """Context manager; `show` has the type `ShowProgress`."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._printed_s = self._shown_s = clock()
        self._began_s, self._began_at = self._shown_s, 0  # of this piece of work: time, and steps done before
        self._done, self._total = 0, 0
        self._progress = Progress(
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, left="")

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, work: str, done: int, total: int) -> None:
        """`done` of `total` steps are done. If `done` is lower than before, a new piece of work has begun."""
        now_s = self._clock()
        if done < self._done or total != self._total:  # its first step began when the last one ended
            self._began_s, self._began_at = self._shown_s, max(0, done - 1)
            self._progress.reset(self._task)
        self._done, self._total, self._shown_s = done, total, now_s
        left = self._time_left(now_s)
        self._progress.update(self._task, description=one_line(work), completed=done, total=total, left=left)
        if not self._console.is_terminal and now_s - self._printed_s >= _PLAIN_EVERY_S:
            self._printed_s = now_s
            self._console.print(f"{work}: {done} of {total}{left and f', {left}'}", soft_wrap=True)

    def _time_left(self, now_s: float) -> str:
        """By the mean time of a step of this piece of work; empty before the first step has ended."""
        steps = self._done - self._began_at
        if steps <= 0 or self._done >= self._total:
            return ""
        seconds = (now_s - self._began_s) / steps * (self._total - self._done)
        return f"about {format_duration(seconds)} left"


def step_counter(work: str, total: int, show: ShowProgress) -> Callable[[int], None]:
    """Returns a function that adds a number of finished steps and shows the sum."""
    done = 0

    def step(more: int) -> None:
        nonlocal done
        done += more
        show(work, done, total)

    return step
