"""Shows a run on the terminal: one live panel, or a plain line every five seconds where the output is no terminal.

Log lines stay: the panel prints them above itself, and shows the last warning.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sagelink.monitor.freshness import LinkState, age, camera_silence, link_words
from sagelink.monitor.quota_words import quota_title, quota_words
from sagelink.monitor.terminal.terminal import outside
from sagelink.pipeline.log_lines import LastWarning
from sagelink.pipeline.quantities import format_duration, format_rate
from sagelink.pipeline.types import Verdict

_PLAIN_EVERY_S = 5.0
_REFRESH_HZ = 4
_BARS = " ▁▂▃▄▅▆▇█"
_HISTORY = 32
_NAME = 20  # columns
_COLOURS = {"edge": "bright_black", "server": "blue", "fused": "green"}
_LINK_COLOURS = {LinkState.UP: "green", LinkState.QUIET: "", LinkState.SILENT: "red", LinkState.DOWN: "red"}


class LivePanel:
    """Shows frames, uplink and budget, origins of verdicts, drop reasons, latency, and the last answer per camera."""

    def __init__(
        self,
        console: Console,
        title: str,
        total: int | None,
        now: Callable[[], dict[str, Any]],
    ) -> None:
        """`total`: frames of the source, if known; `now`: returns the state of the run, as `Run.now`."""
        self._console = console
        self._title = title
        self._total = total
        self._now = now
        self._printed_s = time.monotonic()
        self._levels: deque[float] = deque([0.0] * _HISTORY, maxlen=_HISTORY)
        self._warnings = LastWarning()
        self._live = Live(
            get_renderable=self._panel,
            console=console,
            refresh_per_second=_REFRESH_HZ,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),  # log lines in a file stay in that file
        )

    def __enter__(self) -> LivePanel:
        if self._console.is_terminal:
            self._warnings.__enter__()
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
            self._warnings.__exit__()

    def tell(self, message: str) -> None:
        """Prints a line that stays on the terminal."""
        self._console.print(outside(message), soft_wrap=True)

    def show(self, verdict: Verdict) -> None:
        """Call it with each verdict: it prints the plain line when one is due."""
        now_s = time.monotonic()
        if self._console.is_terminal or now_s - self._printed_s < _PLAIN_EVERY_S:
            return
        self._printed_s = now_s
        state = self._now()
        line = f"{state['frames']}{self._of_total()} frames  {state['fps']:.1f} fps  {_rates(state)}{self._left(state)}"
        silent = [name for name, camera in state["cameras"].items() if camera_silence(camera)]
        notes = [f"no picture: {', '.join(silent)}"] if silent else []
        if state["link_state"] in (LinkState.SILENT, LinkState.DOWN):
            notes.append(f"link: {link_words(state)}")
        self._console.print(outside("  ".join([line, *notes])), soft_wrap=True)

    def _panel(self) -> RenderableType:
        state = self._now()
        rows = Table.grid(padding=(0, 2, 0, 0))
        rows.add_column(style="dim", no_wrap=True, max_width=_NAME)
        rows.add_column()
        rows.add_row("frames", self._frames(state))
        rows.add_row("uplink", self._uplink(state))
        for quota in state["quotas"]:
            rows.add_row(f"quota {quota_title(quota)}", outside(quota_words(quota)))
        rows.add_row("link", outside(link_words(state), _LINK_COLOURS[state["link_state"]]))
        rows.add_row("verdicts", _shares(state["origins"], state["frames"]))
        if state["drops"]:
            rows.add_row("not answered", _drops(state["drops"]))
        rows.add_row("ms p50/p95", _latency(state["latency_ms"]))
        for name, camera in state["cameras"].items():
            rows.add_row(outside(name), _last_answer(camera))
        if warned := self._warnings.last:
            rows.add_row("last warning", outside(f"{age(time.monotonic() - warned.at_s)} ago: {warned.line}", "yellow"))
        return Panel(rows, title=outside(f"sagelink  {self._title}"), title_align="left", border_style="bright_black")

    def _frames(self, state: dict[str, Any]) -> RenderableType:
        text = Text(f"{state['frames']}{self._of_total()}, {state['fps']:.1f} per second{self._left(state)}")
        if not self._total:
            return text
        return _side_by_side(ProgressBar(self._total, state["frames"], width=24), text)

    def _of_total(self) -> str:
        return f" of {self._total}" if self._total else ""

    def _left(self, state: dict[str, Any]) -> str:
        """The time that is left, where the number of frames is known."""
        frames_left = max(0, (self._total or 0) - state["frames"])
        return f", about {format_duration(frames_left / state['fps'])} left" if frames_left and state["fps"] else ""

    def _uplink(self, state: dict[str, Any]) -> RenderableType:
        spent, limit = state["window_bits"], state["budget_bits"]
        self._levels.append(spent)
        top = limit or max(self._levels) or 1
        spark = "".join(_BARS[min(8, int(8 * level / top + 0.999))] for level in self._levels)
        return Text.assemble(f"{_rates(state)}  ", (spark, "green"), no_wrap=True, overflow="crop")


def _rates(state: dict[str, Any]) -> str:
    control = state["control"]
    return f"{format_rate(state['window_bits'] / control['window_s'])} of {control['uplink']}"


def _side_by_side(*items: RenderableType) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(*items)
    return grid


def _shares(counts: dict[str, int], total: int) -> Text:
    parts = [(f"{name} {count / total:.0%}  ", _COLOURS[name]) for name, count in sorted(counts.items())]
    return Text.assemble(*parts)


def _drops(drops: dict[str, Any]) -> Text:
    texts = []
    for reason, drop in drops.items():
        slow = f" ({drop['slow']} is the limit)" if drop["slow"] else ""
        texts.append(f"{reason} {drop['frames']}{slow}")
    return Text(", ".join(texts))


def _latency(stages: dict[str, Any]) -> Text:
    texts = [f"{stage} {p['p50']:.0f}/{p['p95']:.0f}" for stage, p in stages.items() if p and p["p95"] >= 1]
    return Text("  ".join(texts))


def _last_answer(camera: dict[str, Any]) -> Text:
    if silence := camera_silence(camera):
        return outside(silence, "red" if camera["health"] else "bright_black")
    if camera.get("label") is None:
        return Text("no answer")
    sent = f"{camera['units']} units, {camera['wire_bits'] // 8} B" if camera["units"] else "not sent"
    note = f" ({camera['drop']})" if camera["drop"] else ""
    note += f", was {camera['revised_from']}" if camera["revised_from"] else ""
    newest = camera["now"] or {}
    note += f"  now {newest['label']}" if newest.get("label", camera["label"]) != camera["label"] else ""
    return Text.assemble(
        outside(f"{camera['label']} {camera['prob']:.0%}", "bold"),
        "  ",
        (camera["origin"], _COLOURS[camera["origin"]]),
        outside(f"  {sent}{note}"),
    )
