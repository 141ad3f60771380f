"""Record stage: writes verdicts to all sinks, in each camera's order of capture."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.types import Verdict
from sagelink.stages.sinks.contract import PendingSink, Sink


class Recorder:
    """Writes each frame's verdict once to all sinks, in its camera's order of capture, whatever order they arrive in.

    A verdict waits for the verdicts of earlier frames of its camera; every captured frame gets one, so the wait ends.
    A sink that fails gets nothing more; the others still get every verdict.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        smooth: Callable[[Verdict], Verdict] = lambda verdict: verdict,
        lighten: Callable[[Verdict], Verdict] = lambda verdict: verdict,
    ) -> None:
        """`smooth`: revises each verdict before the sinks get it, called in order. `lighten`: makes a verdict that has
        to wait smaller in memory."""
        self._sinks = sinks
        self._smooth = smooth
        self._lighten = lighten
        self._failed: list[Sink] = []
        self._failure: SagelinkError | None = None  # of the first sink that failed
        self._next_seq: Counter[str] = Counter()  # by camera
        self._waiting: dict[tuple[str, int], Verdict] = {}
        self._lock = threading.Lock()
        self._closed = False

    def write(self, verdict: Verdict) -> None:
        """Takes a verdict, provisional or final. Raises SagelinkError when a sink has failed."""
        with self._lock:
            camera, seq = verdict.frame.camera, verdict.frame.seq
            if verdict.pending:
                self._show_pending(verdict)
                self._raise_failure()
                return
            if seq >= self._next_seq[camera] and (camera, seq) not in self._waiting:
                waits = seq > self._next_seq[camera]
                self._waiting[camera, seq] = self._lighten(verdict) if waits else verdict
            # A verdict without a drop reason was preceded by its provisional one.
            if seq > self._next_seq[camera] and verdict.drop is not None:
                self._show_pending(verdict)
            while (camera, self._next_seq[camera]) in self._waiting:
                self._write(self._waiting.pop((camera, self._next_seq[camera])))
            self._raise_failure()

    def close(self) -> None:
        """Writes the verdicts that still wait for an earlier one, and closes all sinks. Raises as `write` does, also
        when it is called again."""
        with self._lock:
            if self._closed:
                self._raise_failure()
                return
            self._closed = True
            for place in sorted(self._waiting):
                self._write(self._waiting.pop(place))
            for sink in self._sinks:
                self._try(sink, sink.close)
            self._raise_failure()

    def _write(self, verdict: Verdict) -> None:
        self._next_seq[verdict.frame.camera] = verdict.frame.seq + 1
        verdict = self._smooth(verdict)
        for sink in self._sinks:
            if sink not in self._failed:
                self._try(sink, partial(sink.write, verdict))

    def _show_pending(self, verdict: Verdict) -> None:
        for sink in self._sinks:
            if isinstance(sink, PendingSink) and sink not in self._failed:
                self._try(sink, partial(sink.show_pending, verdict))

    def _try(self, sink: Sink, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # after any failure of a sink, going on would silently lose verdicts
            self._failed.append(sink)
            if self._failure is None:
                self._failure = (
                    error if isinstance(error, SagelinkError) else SagelinkError(f"cannot write results: {error}")
                )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
