"""Progress of long work: a live bar with the remaining time on a terminal, otherwise a plain line every 10 s."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sagelink.pipeline.text import one_line

_PLAIN_EVERY_S = 10.0

ShowProgress: TypeAlias = Callable[[str, int, int], None]  # name of the work, steps done, steps in total


class ProgressBar:
    """Context manager; `show` has the type `ShowProgress`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_s = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)
        self._done = 0

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, work: str, done: int, total: int) -> None:
        """`done` of `total` steps are done. If `done` is lower than before, a new piece of work has begun."""
        if done < self._done:
            self._progress.reset(self._task)
        self._done = done
        self._progress.update(self._task, description=one_line(work), completed=done, total=total)
        if not self._console.is_terminal and time.monotonic() - self._printed_s >= _PLAIN_EVERY_S:
            self._printed_s = time.monotonic()
            self._console.print(f"{work}: {done} of {total}")


def step_counter(work: str, total: int, show: ShowProgress) -> Callable[[int], None]:
    """Returns a function that adds a number of finished steps and shows the sum."""
    done = 0

    def step(more: int) -> None:
        nonlocal done
        done += more
        show(work, done, total)

    return step
