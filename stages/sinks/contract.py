"""The contract of a sink: it takes every verdict of a run, in capture order, from one thread at a time."""

from __future__ import annotations

from typing import Protocol

from sagelink.pipeline.types import Verdict


class Sink(Protocol):
    def write(self, verdict: Verdict) -> None:
        """Takes one verdict; what it raises ends the run."""
        ...

    def close(self) -> None:
        """Everything taken so far is on disk afterwards."""
        ...
