"""Passes verdicts to a sink that writes files, and turns errors of the system into one that names path and cause."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import av

from sagelink.pipeline.output_files import cannot_write
from sagelink.pipeline.types import Verdict
from sagelink.stages.sinks.contract import PendingSink, Sink


class FileSink:
    """A sink around another one."""

    def __init__(self, sink: Sink, path: Path) -> None:
        """`path`: the file or folder that `sink` writes."""
        self._sink = sink
        self._path = path

    def write(self, verdict: Verdict) -> None:
        self._named(lambda: self._sink.write(verdict))

    def show_pending(self, verdict: Verdict) -> None:
        if isinstance(self._sink, PendingSink):
            self._named(partial(self._sink.show_pending, verdict))

    def close(self) -> None:
        self._named(self._sink.close)

    def _named(self, call: Callable[[], None]) -> None:
        try:
            call()
        except (OSError, av.FFmpegError) as error:
            raise cannot_write(self._path, error) from error
