"""The contract of a sink: it receives every verdict of a run, in capture order per camera, one thread at a time."""

from __future__ import annotations

from typing import Protocol

from sagelink.pipeline.types import Verdict


class Sink(Protocol):
    def write(self, verdict: Verdict) -> None:
        """Takes one verdict. An exception ends the run."""
        ...

    def close(self) -> None:
        """Writes everything taken so far to disk."""
        ...
