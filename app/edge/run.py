"""A run: takes a configuration, captures frames, runs the stage graph, and returns the summary of its verdicts.

`prepare` does everything that can fail before the first frame is captured, and leaves nothing behind when it fails.
`Run.run` runs the graph to its end, or to Ctrl-C, and accounts for every captured frame.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING

from sagelink.app.edge.checks import check_answers, check_cameras, check_names
from sagelink.app.edge.demo_notice import demo_notice, have_classes
from sagelink.app.edge.run_parts import build_parts
from sagelink.app.edge.run_status import RunStatus
from sagelink.app.edge.run_wiring import graph_parts, make_monitor, make_recorder, open_link
from sagelink.app.edge.summary import run_summary
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.descriptors import raise_descriptor_limit
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.graph import Graph
from sagelink.pipeline.tasks import background, first_error, on_signals, run_loop, signals_ignored
from sagelink.pipeline.types import Verdict

if TYPE_CHECKING:
    from sagelink.app.edge.heads import HeadsOfRun
    from sagelink.app.edge.outputs import RunOutputs
    from sagelink.app.edge.second_opinion import SecondOpinionService
    from sagelink.app.replay.script import Script
    from sagelink.models.run_models import RunModels
    from sagelink.monitor.monitor import Monitor
    from sagelink.stages.capture import Capture
    from sagelink.stages.sinks.contract import Sink
    from sagelink.stages.verdict_recorder import Recorder

log = logging.getLogger(__name__)


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
        self.parts = build_parts(config, captures, models, script, heads, second_opinions)
        self.status = RunStatus(self.parts, notice)
        self._outputs = outputs
        self._interrupted = False
        self._failures: dict[str, int] = {}  # frames on which a stage raised an error, by stage

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

        parts = self.parts
        raise_descriptor_limit()
        began_s = time.monotonic()
        if tell is not None and self.status.imagenet_note is not None:
            tell(self.status.imagenet_note)
        sinks: list[Sink] = [parts.stats]
        outputs = self._outputs or RunOutputs(parts.config)
        recorder = make_recorder(parts, sinks)
        monitor = make_monitor(parts, self.status, tell)
        try:
            parts.events.open()
            outputs.begin()
            sinks.extend(self._second_opinion_sinks())
            for sink in open_output_sinks(
                *(parts.config, parts.models, parts.heads, outputs.videos, parts.live, parts.wire_ledger, parts.disk),
                files_of_recording(parts.trusts),
            ):
                sinks.append(sink)
            for event_sink in parts.events.sinks():
                sinks.append(event_sink)
            if watch is not None:
                sinks.append(VerdictCallback(watch))
            sinks.extend(monitor.sinks)
            if parts.budgets.ledger is not None:
                parts.wire_ledger.note_earlier(parts.budgets.ledger.start(parts.clock.elapsed_s()))
            with _one_blas_thread():
                run_loop(self._run_graph(recorder, monitor), fast=is_webrtc(parts.config.ship.server))
        except BaseException:
            with suppress(SagelinkError):  # the first error is the one to report
                self._finish(recorder, outputs, began_s)
            raise
        self._finish(recorder, outputs, began_s)
        check_answers(parts.stats.tally.total, self._failures)
        if parts.live and not self._interrupted and not parts.stats.tally.total.verdicts:
            check_cameras(parts.captures)
        return self.summary(time.monotonic() - began_s)

    def summary(self, wall_s: float) -> dict[str, object]:
        """The summary so far; `wall_s`: how long the run has lasted."""
        parts = self.parts
        summary = run_summary(parts.stats.tally, parts.captures, parts.budgets, parts.models, wall_s, self._interrupted)
        summary["unwritten"] = parts.disk.lost
        if parts.second_opinions is not None:
            summary["frigate"] = parts.second_opinions.opinions.summary()
        return summary

    async def _run_graph(self, recorder: Recorder, monitor: Monitor) -> None:
        """Runs the graph; frames that are still inside when it ends get their verdict from the edge answer."""
        from sagelink.app.edge.graph import edge_graph, verdict_on

        parts = self.parts
        graph: Graph | None = None
        if parts.live:
            parts.events.charges.charge_to(partial(parts.wire_ledger.try_charge, ""), parts.wire_ledger.charge)
        try:
            async with self._serve_ledger(), open_link(parts, monitor.count_recovered) as link:
                graph = edge_graph(graph_parts(parts, recorder, link))
                self._stop_on_signals(graph)
                parts.link_watch.follow(link.refusal)
                async with (
                    background(parts.link_watch.run()),
                    self._keeping_trust(),
                    monitor.serving(graph),
                    self._delivering(),
                    parts.events.delivering(link),
                ):
                    try:
                        await graph.run()
                    finally:
                        for verdict in filter(None, (verdict_on(item, parts.fuse) for item in graph.leftovers())):
                            with suppress(SagelinkError):  # a sink has failed: closing the recorder raises it again
                                recorder.write(verdict)
                    if parts.second_opinions is not None:
                        await parts.second_opinions.drain()
                    with suppress(SagelinkError):  # `_finish` raises it again
                        recorder.close()  # ends the open events, while they can still be delivered
                    await parts.events.drain()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            self._failures = graph.failures if graph else {}

    def _second_opinion_sinks(self) -> Iterator[Sink]:
        """Sinks of runs with events: sub-labels, and the captures, which wait for the verdicts on their frames."""
        from sagelink.app.edge.sinks import VerdictCallback
        from sagelink.stages.nvr.capture import EventCapture

        parts = self.parts
        if parts.second_opinions is not None:
            yield parts.second_opinions.opinions
            parts.second_opinions.begin(parts.disk)
        for capture in parts.captures:
            if isinstance(capture, EventCapture):
                yield VerdictCallback(capture.settle)

    def _delivering(self) -> AbstractAsyncContextManager[None]:
        opinions = self.parts.second_opinions
        return nullcontext() if opinions is None else opinions.delivering(self.parts.captures)

    def _keeping_trust(self) -> AbstractAsyncContextManager[object]:
        kept_trust = self.parts.kept_trust
        return nullcontext() if kept_trust is None else background(kept_trust.run())

    def _serve_ledger(self) -> AbstractAsyncContextManager[object]:
        ledger = self.parts.budgets.ledger
        return nullcontext() if ledger is None else ledger.running()

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
        parts = self.parts
        failures: list[SagelinkError] = []
        with signals_ignored():  # a further Ctrl-C must not cut off results that are almost written
            try:
                recorder.close()
            except SagelinkError as error:
                failures.append(error)
            try:
                outputs.write_summary(self.summary(time.monotonic() - began_s), parts.disk.keeper)
            except SagelinkError as error:
                failures.append(error)
            if parts.kept_trust is not None:
                parts.kept_trust.save()
            parts.events.close()
            if parts.second_opinions is not None:
                parts.second_opinions.close()
            outputs.release()
        if failures:
            raise failures[0]


def _one_blas_thread() -> AbstractContextManager[object]:
    """NumPy's OpenBLAS spins for tens of ms after each small product, on a core that a model needs."""
    from threadpoolctl import ThreadpoolController

    limit: AbstractContextManager[object] = ThreadpoolController().select(internal_api="openblas").limit(limits=1)
    return limit
