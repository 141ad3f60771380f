"""A run: takes a configuration, captures frames, runs the stage graph, and returns the summary of its verdicts.

`prepare` does everything that can fail before the first frame is captured, and leaves nothing behind when it fails.
`Run.run` runs the graph to its end, or to Ctrl-C, and accounts for every captured frame.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from sagelink.app.edge.budgets import open_budgets, state_folder
from sagelink.app.edge.checks import (
    check_answers,
    check_cameras,
    check_heads,
    check_names,
    check_pace,
)
from sagelink.app.edge.demo_notice import demo_notice, have_classes
from sagelink.app.edge.summary import run_summary, sources
from sagelink.monitor.freshness import LinkWatch
from sagelink.monitor.live_stats import LiveStats
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.clock import MonotonicClock, StreamClock
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.descriptors import raise_descriptor_limit
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.files.output_files import TRUST
from sagelink.pipeline.graph import Graph
from sagelink.pipeline.tasks import background, first_error, on_signals, run_loop, signals_ignored
from sagelink.pipeline.types import Verdict
from sagelink.stages.run_control import Control

if TYPE_CHECKING:
    from rich.console import Console

    from sagelink.app.edge.graph import EdgeParts
    from sagelink.app.edge.heads import HeadsOfRun
    from sagelink.app.edge.kept_trust import KeptTrust
    from sagelink.app.edge.outputs import RunOutputs
    from sagelink.app.edge.second_opinion import SecondOpinionService
    from sagelink.app.replay.script import Script
    from sagelink.models.run_models import RunModels
    from sagelink.monitor.monitor import Monitor
    from sagelink.monitor.terminal.panel import LivePanel
    from sagelink.stages.capture import Capture
    from sagelink.stages.sinks.contract import Sink
    from sagelink.stages.verdict_recorder import Recorder
    from sagelink.transport.link import EdgeLink

log = logging.getLogger(__name__)

_IMAGENET_NOTE = (
    "the answers are names of ImageNet's 1000 classes; `sagelink teach` makes them your own in five minutes: "
    "docs/own-classes.md"
)


def prepare(config: Config, models: RunModels | None = None) -> Run:
    """Claims the outputs, opens the sources and loads the models.

    `models`: a pair that is already loaded. Raises SagelinkError when the run cannot start.
    """
    from sagelink.app.edge.outputs import RunOutputs, source_files
    from sagelink.app.edge.second_opinion import SecondOpinionService
    from sagelink.models.run_models import load_models
    from sagelink.monitor.dashboard.dashboard import check_dashboard
    from sagelink.stages.capture import close_captures, open_captures
    from sagelink.stages.nvr.open import check_event_sources, open_event_capture, takes_frigate

    check_names(config)
    check_dashboard(config.dashboard)
    with ExitStack() as stack:
        outputs = RunOutputs(config, source_files(config.all_cameras))
        stack.callback(outputs.release)
        check_event_sources(config.all_cameras)
        captures = open_captures(config.all_cameras, config.capture, partial(open_event_capture, config))
        stack.callback(close_captures, captures)
        models = models or load_models(config)
        notice = demo_notice(config, have_classes(captures, models.edge.labels))
        opinions = SecondOpinionService(config, models.edge.labels) if takes_frigate(config) else None
        if opinions is not None:
            stack.callback(opinions.close)
        run = Run(config, captures, models, notice=notice, outputs=outputs, second_opinions=opinions)
        stack.pop_all()
        return run


class Run:
    """One prepared run."""

    def __init__(
        self,
        config: Config,
        captures: Sequence[Capture],
        models: RunModels,
        script: Script | None = None,
        notice: str | None = None,
        outputs: RunOutputs | None = None,
        heads: HeadsOfRun | None = None,
        second_opinions: SecondOpinionService | None = None,
    ) -> None:
        """`script`: in an exact replay, the recorded decisions of the outside world. `notice`: a line that everybody
        who watches the run sees. `outputs`: where they have been claimed; otherwise `run` claims them. `heads`: in a
        replay, those of the recording. `second_opinions`: of a run with events of Frigate; `run` closes them. Raises
        UsageError."""
        from sagelink.app.edge.disk import RunDisk
        from sagelink.app.edge.events import EventService
        from sagelink.app.edge.further_heads import further_heads
        from sagelink.app.edge.heads import HeadsOfRun, label_heads
        from sagelink.app.edge.kept_heads import KeptHeads
        from sagelink.app.edge.kept_trust import KeptTrust
        from sagelink.models.model_contract import own_bits
        from sagelink.stages.confidence_gate import Gate
        from sagelink.stages.edge_trust import EdgeTrust
        from sagelink.stages.evidence_encoder import encoders
        from sagelink.stages.fuse import Fuse

        self.config = config
        self.captures = captures
        self.models = models
        self.notice = notice
        self.live = any(capture.live for capture in captures)
        _ignore_truth_of_other_classes(captures, models)
        self.own_budget_cameras = frozenset(camera.name for camera in config.all_cameras if camera.budget is not None)
        self.budgets = open_budgets(config, self.live, None if script is None else script.bound)
        self.budget, self.accounts = self.budgets.site, self.budgets.accounts
        self.stats = LiveStats(self.own_budget_cameras, config.budget.window if self.live else math.inf)
        self.trusts = {name: EdgeTrust() for name in _tracked_cameras(config, captures)}  # by camera
        self._kept_trust: KeptTrust | None = None
        if self.live and script is None and self.trusts:
            path = config.trust_file or state_folder() / TRUST
            self._kept_trust = KeptTrust(path, self.trusts, _origins(config, captures))
        self._gate = Gate(config.gate, own_bits(models.edge))
        self.control = Control(
            self.budget, self._gate, self.budgets.pacing, partial(check_pace, config, models), self.trusts
        )
        self._encoder_for = encoders(config, models.server)
        self._fuse = Fuse(config.fuse.rule == "server", config.fuse.weights, models.server.grid.units)
        cameras = [camera.name for camera in config.all_cameras]
        self.heads = heads or HeadsOfRun(
            models, cameras, by_label=label_heads(config), further=further_heads(config, models)
        )
        if heads is None and config.head_folder is not None:
            KeptHeads(config.head_folder, self.heads)
        check_heads(config, models, self.heads, self._encoder_for)
        self._clock = MonotonicClock() if self.live else StreamClock()
        self._wire_ledger = WireLedger(
            self.budget, self._clock.elapsed_s, self.accounts, recorded=config.output.record is not None
        )
        self._outputs = outputs
        self._script = script
        self._disk = RunDisk(config.output)
        self._events = EventService(config, models.edge.labels, self.live and script is None, self._disk)
        if script is not None:
            script.budget, script.accounts = self.budget, self.accounts
        self._second_opinions = second_opinions
        self._link_watch = LinkWatch()
        self._interrupted = False
        self._failures: dict[str, int] = {}  # frames on which a stage raised an error, by stage

    @property
    def source(self) -> str:
        """The sources that are read, without credentials."""
        return sources(self.captures)

    @property
    def title(self) -> str:
        """The sources in one line."""
        return self.source if len(self.captures) == 1 else f"{len(self.captures)} cameras"

    @property
    def length(self) -> int | None:
        """How many frames there will be; None when a source does not know."""
        lengths = [capture.length for capture in self.captures]
        return None if None in lengths else sum(filter(None, lengths))

    def panel(self, console: Console) -> LivePanel:
        """A panel for the terminal that shows the run."""
        from sagelink.monitor.terminal.panel import LivePanel

        return LivePanel(console, self.title, self.length, self.now)

    def now(self) -> dict[str, Any]:
        """The current state of the run as plain JSON values; docs/dashboard.md describes the keys."""
        health = {capture.name: capture.health() for capture in self.captures}
        stats = self.stats.snapshot(self.models.edge.labels, health)
        notice = self.notice or self.imagenet_note
        if self._disk.lost:
            notice = f"the disk was full: {self._disk.lost} lines and pictures were not written"
        shown = {
            "control": self.control.state(),
            "notice": notice,
            "events": {"open": len(self._events.feed.open_events()), "actions": self._events.feed.count},
            "quotas": self.budgets.quota_states(),
            "trust": {name: trust.summary() for name, trust in self.trusts.items()},
        }
        return stats | shown | self._link_watch.state(stats)

    @property
    def imagenet_note(self) -> str | None:
        """Says of a live camera without a head whose classes these are; None for all others."""
        from sagelink.models.model_contract import is_imagenet

        own = any(self.heads.in_use(camera) for camera in self.heads.cameras)
        return _IMAGENET_NOTE if self.live and not own and is_imagenet(self.models.edge) else None

    def run(
        self, watch: Callable[[Verdict], None] | None = None, tell: Callable[[str], None] | None = None
    ) -> dict[str, object]:
        """Runs to the end and returns the summary, which is also written into the output folder if there is one.

        `watch` receives each verdict, in capture order, in a thread. In a live run without recording and annotated
        video, the picture of a frame that waited for an earlier one has at most 640 pixels a side by then. `tell`
        receives messages for the user, such as the dashboard's address. Raises SagelinkError when the run fails; all
        results up to then are kept.
        """
        from sagelink.app.edge.kept_trust import files_of_recording
        from sagelink.app.edge.outputs import RunOutputs
        from sagelink.app.edge.sinks import VerdictCallback, open_output_sinks
        from sagelink.pipeline.urls import is_webrtc

        raise_descriptor_limit()
        began_s = time.monotonic()
        if tell is not None and self.imagenet_note is not None:
            tell(self.imagenet_note)
        sinks: list[Sink] = [self.stats]
        outputs = self._outputs or RunOutputs(self.config)
        recorder = self._recorder(sinks)
        monitor = self._monitor(tell)
        try:
            self._events.open()
            outputs.begin()
            sinks.extend(self._second_opinion_sinks())
            for sink in open_output_sinks(
                *(self.config, self.models, self.heads, outputs.videos, self.live, self._wire_ledger, self._disk),
                files_of_recording(self.trusts),
            ):
                sinks.append(sink)
            for event_sink in self._events.sinks():
                sinks.append(event_sink)
            if watch is not None:
                sinks.append(VerdictCallback(watch))
            sinks.extend(monitor.sinks)
            if self.budgets.ledger is not None:
                self._wire_ledger.note_earlier(self.budgets.ledger.start(self._clock.elapsed_s()))
            with _one_blas_thread():
                run_loop(self._run_graph(recorder, monitor), fast=is_webrtc(self.config.ship.server))
        except BaseException:
            with suppress(SagelinkError):  # the first error is the one to report
                self._finish(recorder, outputs, began_s)
            raise
        self._finish(recorder, outputs, began_s)
        check_answers(self.stats.tally.total, self._failures)
        if self.live and not self._interrupted and not self.stats.tally.total.verdicts:
            check_cameras(self.captures)
        return self.summary(time.monotonic() - began_s)

    def summary(self, wall_s: float) -> dict[str, object]:
        """The summary so far; `wall_s`: how long the run has lasted."""
        summary = run_summary(self.stats.tally, self.captures, self.budgets, self.models, wall_s, self._interrupted)
        summary["unwritten"] = self._disk.lost
        if self._second_opinions is not None:
            summary["frigate"] = self._second_opinions.opinions.summary()
        return summary

    def _recorder(self, sinks: Sequence[Sink]) -> Recorder:
        from sagelink.stages.scene_tracker import scene_config
        from sagelink.stages.small_pictures import with_small_picture
        from sagelink.stages.verdict_recorder import Recorder
        from sagelink.stages.verdict_smoothing import Smoother

        output = self.config.output
        smoother = Smoother(scene_config(self.config.video, self.config.head is not None))
        if self.live and output.record is None and output.annotate is None:
            return Recorder(sinks, smoother.smooth, with_small_picture)
        return Recorder(sinks, smoother.smooth)

    def _monitor(self, tell: Callable[[str], None] | None) -> Monitor:
        from sagelink.app.edge.labels import run_labels
        from sagelink.monitor.monitor import Monitor

        return Monitor(
            self.config,
            self.models,
            [capture.name for capture in self.captures],
            self.title,
            self.control,
            self.now,
            self.live,
            self.own_budget_cameras,
            tell,
            partial(run_labels, self.config, self.heads),
            self._events.feed if self.config.events.rules else None,
            self._wire_ledger if self.live else None,
        )

    async def _run_graph(self, recorder: Recorder, monitor: Monitor) -> None:
        """Runs the graph; frames that are still inside when it ends get their verdict from the edge answer."""
        from sagelink.app.edge.graph import edge_graph, verdict_on

        graph: Graph | None = None
        if self.live:
            self._events.charges.charge_to(partial(self._wire_ledger.try_charge, ""), self._wire_ledger.charge)
        try:
            async with self._serve_ledger(), self._link(monitor.count_recovered) as link:
                graph = edge_graph(self._parts(recorder, link))
                self._stop_on_signals(graph)
                self._link_watch.follow(link.refusal)
                async with (
                    background(self._link_watch.run()),
                    self._keeping_trust(),
                    monitor.serving(graph),
                    self._delivering(),
                    self._events.delivering(link),
                ):
                    try:
                        await graph.run()
                    finally:
                        for verdict in filter(None, (verdict_on(item, self._fuse) for item in graph.leftovers())):
                            with suppress(SagelinkError):  # a sink has failed: closing the recorder raises it again
                                recorder.write(verdict)
                    if self._second_opinions is not None:
                        await self._second_opinions.drain()
                    with suppress(SagelinkError):  # `_finish` raises it again
                        recorder.close()  # ends the open events, while they can still be delivered
                    await self._events.drain()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            self._failures = graph.failures if graph else {}

    def _second_opinion_sinks(self) -> Iterator[Sink]:
        """Sinks of runs with events: sub-labels, and the captures, which wait for the verdicts on their frames."""
        from sagelink.app.edge.sinks import VerdictCallback
        from sagelink.stages.nvr.capture import EventCapture

        if self._second_opinions is not None:
            yield self._second_opinions.opinions
            self._second_opinions.begin(self._disk)
        for capture in self.captures:
            if isinstance(capture, EventCapture):
                yield VerdictCallback(capture.settle)

    def _delivering(self) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._second_opinions is None else self._second_opinions.delivering(self.captures)

    def _keeping_trust(self) -> AbstractAsyncContextManager[object]:
        return nullcontext() if self._kept_trust is None else background(self._kept_trust.run())

    def _serve_ledger(self) -> AbstractAsyncContextManager[object]:
        return nullcontext() if self.budgets.ledger is None else self.budgets.ledger.running()

    def _parts(self, recorder: Recorder, link: EdgeLink) -> EdgeParts:
        from sagelink.app.edge.graph import EdgeParts

        return EdgeParts(
            config=self.config,
            models=self.models,
            captures=self.captures,
            accounts=self.accounts,
            gate=self._gate,
            encoder_for=self._encoder_for,
            heads=self.heads,
            fuse=self._fuse,
            recorder=recorder,
            link=link,
            clock=self._clock,
            alerts=self._events.charges,
            trusts=self.trusts,
            script=self._script,
            reserve=self.budgets.ledger.reserve if self.budgets.ledger else None,
        )

    def _link(self, on_recovered: Callable[[str], None]) -> AbstractAsyncContextManager[EdgeLink]:
        from sagelink.app.edge.link import edge_link

        if self._script is not None:
            return self._script.link
        cameras = [*self.accounts]
        wire_ledger = self._wire_ledger if self.live else None  # a replay's budget knows only stream time
        return edge_link(
            self.config, self.models, self.heads, cameras, wire_ledger, self.control, on_recovered, self._digest
        )

    def _digest(self, camera: str) -> bytes:
        from sagelink.app.edge.console_digest import camera_digest

        health = {capture.name: capture.health() for capture in self.captures}
        return camera_digest(self.stats, self.control, health[camera], camera, self.budgets.quota_states())

    def _stop_on_signals(self, graph: Graph) -> None:
        """The first Ctrl-C, SIGTERM or SIGHUP lets the frames inside get through; the second cuts them off."""

        def stop() -> None:
            if graph.stopping:
                log.info("event=aborting")
                graph.abort()
            else:
                log.info("event=stopping")
                self._interrupted = True
                graph.stop()

        on_signals(stop)

    def _finish(self, recorder: Recorder, outputs: RunOutputs, began_s: float) -> None:
        """Closes the sinks and writes the summary, whatever happened before. Raises the first SagelinkError."""
        failures: list[SagelinkError] = []
        with signals_ignored():  # a further Ctrl-C must not cut off results that are almost written
            try:
                recorder.close()
            except SagelinkError as error:
                failures.append(error)
            try:
                outputs.write_summary(self.summary(time.monotonic() - began_s), self._disk.keeper)
            except SagelinkError as error:
                failures.append(error)
            if self._kept_trust is not None:
                self._kept_trust.save()
            self._events.close()
            if self._second_opinions is not None:
                self._second_opinions.close()
            outputs.release()
        if failures:
            raise failures[0]


def _ignore_truth_of_other_classes(captures: Sequence[Capture], models: RunModels) -> None:
    from sagelink.stages.capture import Playback

    for capture in captures:
        if isinstance(capture, Playback) and capture.labels != models.edge.labels:
            capture.forget_truth()


def _tracked_cameras(config: Config, captures: Sequence[Capture]) -> frozenset[str]:
    """Cameras whose scenes are tracked from frame to frame."""
    if config.video.policy == "auto":
        return frozenset(capture.name for capture in captures if capture.video)
    return frozenset(capture.name for capture in captures if config.video.policy == "always")


def _origins(config: Config, captures: Sequence[Capture]) -> dict[str, str]:
    """By camera: a text that names its source and both models."""
    models = repr([(side, str(own.checkpoint)) for side, own in (("edge", config.edge), ("server", config.server))])
    names = f"{config.edge_model} {config.server_model} {models}"
    return {capture.name: f"{capture.source} {names}" for capture in captures}


def _one_blas_thread() -> AbstractContextManager[object]:
    """NumPy's OpenBLAS spins for tens of ms after each small product, on a core that a model needs."""
    from threadpoolctl import ThreadpoolController

    limit: AbstractContextManager[object] = ThreadpoolController().select(internal_api="openblas").limit(limits=1)
    return limit
