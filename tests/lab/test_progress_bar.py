"""The progress of long work, with the time that is left, on a terminal and in a file."""

from __future__ import annotations

import io

from rich.console import Console

from sagelink.lab.progress_bar import ProgressBar


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def lines_of(steps: list[tuple[float, int, int]]) -> list[str]:
    """The plain lines of `steps`: seconds since the last step, steps done, steps in total."""
    text, clock = io.StringIO(), Clock()
    with ProgressBar(Console(file=text, width=100), clock) as bar:
        for seconds, done, total in steps:
            clock.now_s += seconds
            bar.show("points", done, total)
    return text.getvalue().splitlines()


def test_without_a_terminal_a_line_every_five_seconds_names_the_time_left() -> None:
    assert lines_of([(2.0, done, 200) for done in range(1, 7)]) == [
        "points: 3 of 200, about 7 min left",
        "points: 6 of 200, about 6 min left",
    ]


def test_a_step_may_take_minutes() -> None:
    assert lines_of([(120.0, 1, 3), (120.0, 2, 3), (120.0, 3, 3)]) == [
        "points: 1 of 3, about 4 min left",
        "points: 2 of 3, about 2 min left",
        "points: 3 of 3",
    ]


def test_steps_that_an_earlier_command_has_done_do_not_count() -> None:
    assert lines_of([(60.0, 91, 100), (60.0, 92, 100)]) == [
        "points: 91 of 100, about 9 min left",
        "points: 92 of 100, about 8 min left",
    ]


def test_each_piece_of_work_has_its_own_pace() -> None:
    assert lines_of([(1.0, 50, 50), (6.0, 1, 11), (6.0, 2, 11)]) == [
        "points: 1 of 11, about 60 s left",
        "points: 2 of 11, about 54 s left",
    ]


def test_a_terminal_shows_the_time_left() -> None:
    text, clock = io.StringIO(), Clock()
    console = Console(file=text, width=100, force_terminal=True)
    with ProgressBar(console, clock) as bar:
        clock.now_s += 60
        bar.show("points", 1, 3)
        bar._progress.refresh()
    assert "about 2 min left" in text.getvalue()
