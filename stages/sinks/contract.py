"""The contract of a sink: it receives every verdict of a run, in capture order per camera, one thread at a time."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from sagelink.pipeline.types import Verdict


class Sink(Protocol):
    def write(self, verdict: Verdict) -> None:
        """Takes one verdict. An exception ends the run."""
        ...

    def close(self) -> None:
        """Writes everything taken so far to disk."""
        ...


@runtime_checkable
class PendingSink(Sink, Protocol):
    """A sink that also uses provisional verdicts."""

    def show_pending(self, verdict: Verdict) -> None:
        """Takes the provisional verdict of a frame whose final verdict has to wait. An exception ends the run."""
        ...
