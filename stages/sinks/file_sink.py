"""Passes verdicts to a sink that writes files, and turns errors of the system into one that names path and cause.

With a `DiskKeeper`, a full disk is no error: the frame is left out of the sink's files, and counted.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av

from sagelink.pipeline.files.disk_keeper import DiskKeeper, is_full
from sagelink.pipeline.files.output_files import cannot_write
from sagelink.pipeline.types import Verdict
from sagelink.stages.sinks.contract import PendingSink, Sink

log = logging.getLogger(__name__)


class FileSink:
    """A sink around another one."""

    def __init__(self, sink: Sink, path: Path, keeper: DiskKeeper | None = None, resumes: bool = True) -> None:
        """`path`: the file or folder that `sink` writes. `resumes`: whether the sink can leave a frame out; one that
        cannot ends there."""
        self._keeper = keeper
        self._resumes = resumes
        self._ended = False
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
        if self._ended:
            return
        try:
            call()
        except (OSError, av.FFmpegError) as error:
            if self._keeper is not None and is_full(error):
                self._keeper.count_lost()
                self._keeper.make_room()
                if not self._resumes:
                    self._end()
                return
            raise cannot_write(self._path, error) from error

    def _end(self) -> None:
        self._ended = True
        log.warning("event=output_ended path=%s reason='the disk is full'", self._path)
        with contextlib.suppress(OSError, av.FFmpegError):
            self._sink.close()
