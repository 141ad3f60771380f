"""Progress of long work: a live bar with the time left on a terminal, else a plain line now and then."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_EVERY_S = 10.0


class Bar:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)
        self._done = 0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """`done` of `total` steps are done; where `done` falls, something else has begun."""
        if done < self._done:
            self._progress.reset(self._task)
        self._done = done
        self._progress.update(self._task, description=what, completed=done, total=total)
        if not self._console.is_terminal and time.monotonic() - self._told >= _PLAIN_EVERY_S:
            self._told = time.monotonic()
            self._console.print(f"{what}: {done} of {total}", highlight=False)
