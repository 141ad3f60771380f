"""Record: hands verdicts to all sinks, in each camera's capture order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.types import Verdict
from sagelink.stages.sinks.contract import Sink


class Recorder:
    """Hands verdicts to all sinks, each frame once, in its camera's order of capture whatever order they come in.

    A verdict waits for those of earlier frames of its camera; every captured frame gets one, so none waits for ever.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        last_word: Callable[[Verdict], Verdict] = lambda verdict: verdict,
        announce: Callable[[Verdict], None] = lambda verdict: None,
    ) -> None:
        """`last_word`: asked of each verdict, in order, before the sinks get it; `announce`: told of what is said of a
        frame at once, where its verdict has to wait."""
        self._sinks = sinks
        self._last_word = last_word
        self._announce = announce
        self._next_seq: Counter[str] = Counter()  # by camera
        self._early: dict[tuple[str, int], Verdict] = {}
        self._lock = threading.Lock()

    def write(self, verdict: Verdict) -> None:
        """Raises SagelinkError when a sink cannot keep it."""
        with self._lock:
            camera, seq = verdict.frame.camera, verdict.frame.seq
            if verdict.pending:
                self._announce(verdict)
                return
            if seq >= self._next_seq[camera]:
                self._early.setdefault((camera, seq), verdict)
            if seq > self._next_seq[camera] and verdict.drop is not None:  # else it has been announced
                self._announce(verdict)
            while (camera, self._next_seq[camera]) in self._early:
                self._write(self._early.pop((camera, self._next_seq[camera])))

    def close(self) -> None:
        """Writes what still waits for an earlier verdict, and closes every sink."""
        with self._lock:
            try:
                for place in sorted(self._early):
                    self._write(self._early.pop(place))
            finally:
                for sink in self._sinks:
                    sink.close()

    def _write(self, verdict: Verdict) -> None:
        self._next_seq[verdict.frame.camera] = verdict.frame.seq + 1
        verdict = self._last_word(verdict)
        for sink in self._sinks:
            try:
                sink.write(verdict)
            except Exception as error:  # whatever a sink meets, going on would lose verdicts in silence
                raise SagelinkError(f"cannot write results: {error}") from error
