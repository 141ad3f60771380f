"""A run: from a configuration to the stage graph, its verdicts, and the summary.

`prepare` does everything that can fail before a frame is captured, and leaves nothing behind when it fails; `Run.go`
runs the graph to its end, or to Ctrl-C, and always accounts for every captured frame.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from sagelink.monitor.stats import LiveStats
from sagelink.pipeline.accounts import CameraAccount, CameraShare, open_accounts
from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.clock import BudgetClock, MonotonicClock, StreamClock
from sagelink.pipeline.config import Config, DashboardConfig
from sagelink.pipeline.config_file import dump_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.graph import Graph
from sagelink.pipeline.outputs import PICTURES, RESULTS, SUMMARY, check_writable
from sagelink.pipeline.overhead import OverheadLog
from sagelink.pipeline.tasks import first_error, on_signals, run_loop
from sagelink.pipeline.types import Drop, Verdict
from sagelink.stages.control import Control

if TYPE_CHECKING:
    from rich.console import Console

    from sagelink.app.script import Script
    from sagelink.models.pair import Pair
    from sagelink.monitor.monitor import Monitor
    from sagelink.monitor.panel import LivePanel
    from sagelink.stages.capture import Capture
    from sagelink.stages.record import Recorder
    from sagelink.stages.sinks.contract import Sink
    from sagelink.transport.link import EdgeLink


def check_names(config: Config) -> None:
    """Raises UsageError for a gate policy, selector or codec that nobody has registered."""
    from sagelink.stages.confidence_gate import Gate
    from sagelink.stages.selectors import selector_by_name
    from sagelink.stages.usable_curves import AUTO
    from sagelink.transport.codecs import codec_by_name

    Gate(config.gate)
    selector_by_name(config.select.selector)
    if config.encode.codec != AUTO:
        codec_by_name(config.encode.codec)


def prepare(config: Config, models: Pair | None = None) -> Run:
    """Opens the source, loads the models, checks the outputs. Raises SagelinkError."""
    from sagelink.models.pair import Pair
    from sagelink.monitor.dashboard import check_dashboard
    from sagelink.stages.capture import close_captures, open_captures

    check_names(config)
    check_dashboard(config.dashboard)
    for path in (config.output.out, config.output.record, config.output.annotate and config.output.annotate.parent):
        if path is not None:
            check_writable(path)
    captures = open_captures(config.all_cameras, config.capture)
    try:
        return Run(config, captures, models or Pair.load(config))
    except BaseException:
        close_captures(captures)
        raise


class Run:
    """One prepared run."""

    def __init__(self, config: Config, captures: Sequence[Capture], models: Pair, script: Script | None = None) -> None:
        """`script`: what happens from outside, in a run that is repeated from its recording."""
        from sagelink.stages.capture import Playback
        from sagelink.stages.confidence_gate import Gate
        from sagelink.stages.encoder import Encoder
        from sagelink.stages.fuse import Fuse
        from sagelink.stages.sinks.tally import Tally

        self.config = config
        self.captures = captures
        self._script = script
        self.models = models
        self.budget = UplinkBudget(config.budget.uplink, config.budget.window)
        self._overhead = OverheadLog(self.budget, recorded=config.output.record is not None)
        if script is not None:
            script.budget = self.budget
        self.tally = Tally()
        self.own_budget_cameras = frozenset(each.name for each in config.all_cameras if each.budget is not None)
        self._gate = Gate(config.gate)
        self.control = Control(self.budget, self._gate)
        self.live = any(capture.live for capture in captures)
        always = config.video.policy == "always"
        followed = [each.name for each in captures if always or (config.video.policy == "auto" and each.video)]
        self._video = frozenset(followed)  # cameras whose scenes are remembered
        self.stats = LiveStats(self.own_budget_cameras, config.budget.window if self.live else math.inf)
        if self.live and config.select.memory is not None and config.output.record is not None:
            raise UsageError(
                "select.memory: when replies came is not recorded, so what the server was known to remember could not "
                "be repeated; accepted in a live run: select.memory or output.record"
            )
        self.accounts = self._open_accounts()
        for capture in captures:
            if isinstance(capture, Playback) and capture.labels != models.edge.labels:
                capture.forget_truth()
        self._fuse = Fuse(config.fuse.rule == "server", config.fuse.weights, models.server.grid.units)
        self._encoder = Encoder.from_config(config, models.server)
        self._interrupted = False

    @property
    def source(self) -> str:
        """What is read, without credentials."""
        return ", ".join(capture.source for capture in self.captures)

    @property
    def title(self) -> str:
        """What is read, in a line."""
        return self.source if len(self.captures) == 1 else f"{len(self.captures)} cameras"

    @property
    def length(self) -> int | None:
        """How many frames there will be, where every source knows."""
        lengths = [capture.length for capture in self.captures]
        return None if None in lengths else sum(filter(None, lengths))

    def panel(self, console: Console) -> LivePanel:
        """What to show on the terminal while it runs."""
        from sagelink.monitor.panel import LivePanel

        return LivePanel(console, self.title, self.length, self.now)

    def now(self) -> dict[str, Any]:
        """What it looks like at this moment, as plain JSON values; the keys are documented in docs/dashboard.md."""
        health = {capture.name: capture.health() for capture in self.captures}
        return self.stats.snapshot(self.models.edge.labels, health) | {"control": self.control.state()}

    def _open_accounts(self) -> dict[str, CameraAccount]:
        """By camera: a part of the one shared budget, or a budget of its own."""
        cameras = self.config.all_cameras
        sharing = {each.name: CameraShare(each.weight, each.min_share) for each in cameras if each.budget is None}
        accounts = open_accounts(self.budget, sharing)
        for each in cameras:
            if each.budget is not None:
                accounts |= open_accounts(
                    UplinkBudget(each.budget.uplink, each.budget.window), {each.name: CameraShare()}
                )
        return accounts

    def run(
        self, watch: Callable[[Verdict], None] | None = None, tell: Callable[[str], None] | None = None
    ) -> dict[str, object]:
        """Runs to the end and returns the summary, which is also on disk when the run has an output folder.

        `watch` is called with each verdict, in capture order, from a thread; `tell` with what a user should know, such
        as the dashboard's address. Raises SagelinkError when the run failed; what was done until then is kept.
        """
        from threadpoolctl import ThreadpoolController

        from sagelink.monitor.monitor import Monitor
        from sagelink.pipeline.urls import is_webrtc
        from sagelink.stages.record import Recorder
        from sagelink.stages.scene_tracker import scene_config
        from sagelink.stages.sinks.annotate import AnnotatedVideos, Painter
        from sagelink.stages.sinks.highlights import Highlights
        from sagelink.stages.sinks.jsonl import JsonLines
        from sagelink.stages.sinks.recording_writer import RecordingWriter
        from sagelink.stages.smoothing import Smoother

        output, labels = self.config.output, self.models.edge.labels
        began = time.monotonic()
        sinks: list[Sink] = [self.tally, self.stats]
        recorder = Recorder(sinks, Smoother(scene_config(self.config.video)).smooth, self.stats.show_pending)
        painter = Painter(labels, self.models.server.grid, self.config.capture.resize)
        with ExitStack() as stack:
            stack.callback(lambda: self._finish(time.monotonic() - began))
            stack.callback(recorder.close)
            try:
                if output.out is not None:
                    output.out.mkdir(parents=True, exist_ok=True)
                    (output.out / SUMMARY).unlink(missing_ok=True)  # of an earlier run in the same folder
                    sinks.append(JsonLines(output.out / RESULTS, labels))
                    if output.pictures:
                        sinks.append(Highlights(output.out / PICTURES, painter, output.pictures))
                if output.record is not None:
                    # Whoever repeats the run does not open the page to the same viewers.
                    text = dump_config(self.config.model_copy(update={"dashboard": DashboardConfig()}))
                    sinks.append(RecordingWriter(output.record, text, labels, self.live, self._overhead.take))
                if output.annotate is not None:
                    output.annotate.parent.mkdir(parents=True, exist_ok=True)
                    several = len(self.captures) > 1
                    sinks.append(AnnotatedVideos(output.annotate, painter, several))
            except OSError as error:
                raise UsageError(f"output cannot be written: {error}") from None
            if watch is not None:
                sinks.append(_VerdictCallback(watch))
            monitor = Monitor(
                self.config,
                self.models,
                [each.name for each in self.captures],
                self.title,
                self.control,
                self.now,
                self.live,
                self.own_budget_cameras,
                tell,
            )
            sinks.extend(monitor.sinks)
            # NumPy's OpenBLAS spins for tens of ms after each small product, on a core that a model needs.
            stack.enter_context(ThreadpoolController().select(internal_api="openblas").limit(limits=1))
            run_loop(self._go(recorder, monitor), fast=is_webrtc(self.config.ship.server))
        if self.tally.verdicts and self.tally.drops[Drop.ERROR] == self.tally.unanswered == self.tally.verdicts:
            raise SagelinkError("the edge model failed on every frame; see the log")
        if self.live and not self.tally.verdicts and not self._interrupted:
            health = {each.name: each.health() or {} for each in self.captures}
            faults = ", ".join(f"{name} ({each.get('fault') or 'silent'})" for name, each in health.items())
            raise SagelinkError(f"no camera gave a frame: {faults}")
        return self.summary(time.monotonic() - began)

    async def _go(self, recorder: Recorder, monitor: Monitor) -> None:
        from sagelink.app.edge_graph import edge_graph, verdict_on

        clock: BudgetClock = MonotonicClock() if self.live else StreamClock()
        edge: Graph | None = None
        try:
            async with self._link(clock, monitor.count_recovered) as link:
                edge = edge_graph(
                    self.config,
                    self.models,
                    self.captures,
                    self._encoder,
                    link,
                    self.accounts,
                    self._fuse,
                    recorder,
                    self._gate,
                    clock,
                    self._video,
                    self._script,
                )
                self._end_on_signals(edge)
                async with monitor.serving(link, edge):
                    await edge.run()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            for item in edge.leftovers() if edge else ():
                verdict = verdict_on(item, self._fuse)
                if verdict is not None:
                    recorder.write(verdict)

    def _link(self, clock: BudgetClock, on_recovered: Callable[[str], None]) -> AbstractAsyncContextManager[EdgeLink]:
        from sagelink.app.edge_link import edge_link

        if self._script is not None:
            return self._script.link
        cameras = [*self.accounts]
        return edge_link(self.config, self.models, cameras, self._overhead, self.control, clock, on_recovered)

    def _end_on_signals(self, graph: Graph) -> None:
        """Ctrl-C or SIGTERM once: end cleanly; twice: now."""

        def end() -> None:
            if graph.stopping:
                graph.abort()
            else:
                self._interrupted = True
                graph.stop()

        on_signals(end)

    def _finish(self, wall_s: float) -> None:
        if self.config.output.out is None or not self.config.output.out.is_dir():
            return
        path = self.config.output.out / SUMMARY
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(self.summary(wall_s), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)

    def summary(self, wall_s: float) -> dict[str, object]:
        """Its keys are documented in docs/outputs.md."""
        tally, latency = self.tally, self.tally.latency
        frames = sum(capture.captured for capture in self.captures)
        accuracy = None
        if tally.with_truth:
            accuracy = {"verdict": tally.correct / tally.with_truth, "edge": tally.edge_correct / tally.with_truth}
        return {
            "frames": frames,
            "verdicts": tally.verdicts,
            "offloaded": tally.offloaded,
            "origins": dict(tally.origins),
            "drops": dict(tally.drops),
            "revised": tally.revised,
            "wire_bits": tally.wire_bits,
            "peak_window_bits": self.budget.peak_window_bits,
            "budget_bits": self.budget.limit_bits,
            "window_s": self.budget.window_s,
            "fps": frames / wall_s if wall_s else 0.0,
            "wall_s": wall_s,
            "latency_ms": {"p50": latency.percentile(0.5), "p95": latency.percentile(0.95), "max": latency.max_ms},
            "accuracy": accuracy,
            "skipped": sum(capture.skipped for capture in self.captures),
            "interrupted": self._interrupted,
            "source": self.source,
            "cameras": {capture.name: self._camera(capture) for capture in self.captures},
            "models": {"edge": self.models.edge.name, "server": self.models.server.name},
        }

    def _camera(self, capture: Capture) -> dict[str, object]:
        account, counts = self.accounts[capture.name], self.tally.cameras[capture.name]
        return {
            "source": capture.source,
            "frames": capture.captured,
            "offloaded": counts["offloaded"],
            "wire_bits": counts["wire_bits"],
            "peak_window_bits": account.own.peak_window_bits,
            "budget_bits": account.limit_bits,
            "skipped": capture.skipped,
            "health": capture.health(),
        }


class _VerdictCallback:
    """A sink that hands verdicts on."""

    def __init__(self, watch: Callable[[Verdict], None]) -> None:
        self.write = watch

    def close(self) -> None:
        pass
