"""Real `sagelink` processes for tests, with their output.

A start costs seconds of processor time, nearly all of it for imports (PyTorch). So each process is a fork of one that
has imported these modules, a forkserver of multiprocessing. tests/app/test_cli.py starts `python -m sagelink` itself.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self
from unittest import mock

from tests.patience import PATIENCE_S

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("tests.processes", "sagelink.app.cli", "sagelink.app.edge.run", "sagelink.app.server.serve"),
        *("sagelink.transport.mqtt.edge", "sagelink.transport.webrtc.edge", "sagelink.monitor.dashboard.dashboard"),
        "sagelink.models.pair",
    ]
)
_FRESH = multiprocessing.get_context("spawn")
_READ_AT_START = {"LD_PRELOAD"}  # variables that a fork would not obey


def forked(target: Callable[..., object], *arguments: object) -> BaseProcess:
    """Starts a process that calls an importable function: within a tenth of a second, where `python -m` needs many."""
    process = _FORKS.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _main(arguments: list[str], environment: dict[str, str], folder: str, output: Path, began: Connection) -> None:
    """What the new process does: the command, its output in a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background of a shell ignore it, and so
    if hasattr(signal, "SIGHUP"):  # would the process; under nohup they ignore SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    began.send(True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if limit := environment.get("ULIMIT_N"):  # as `ulimit -n` before the command
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    sys.argv = ["sagelink", *arguments]
    from sagelink.app.cli import main

    main()


class Sagelink:
    """One `sagelink ...` process. Leaving the context kills it if it still runs."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        with tempfile.NamedTemporaryFile(prefix="sagelink-", suffix=".log", delete=False) as output:
            self._file, self._last = Path(output.name), ""
        variables = os.environ | {"COLUMNS": "120"} | environment
        context = _FRESH if environment.keys() & _READ_AT_START else _FORKS
        self._began, began = context.Pipe(duplex=False)
        given = ([*map(str, arguments)], variables, os.getcwd(), self._file, began)
        with mock.patch.dict(os.environ, variables):
            self._process: BaseProcess = context.Process(target=_main, args=given, daemon=True)
            self._process.start()
        began.close()

    @property
    def output(self) -> str:
        """All that the process has written, to standard output and standard error."""
        return self._file.read_text(errors="replace") if self._file.exists() else self._last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def said(self, text: str, timeout_s: float = PATIENCE_S) -> Self:
        """Waits until the output contains `text`."""
        return self.until(lambda: text in self.output, repr(text), timeout_s)

    def until(self, ready: Callable[[], bool], what: str = "that", timeout_s: float = PATIENCE_S) -> Self:
        """Waits for a condition, which `what` names, while the process runs."""
        end_s = time.monotonic() + timeout_s
        while not ready():
            assert self._process.is_alive() or ready(), f"ended without {what}:\n{self.output}"
            assert time.monotonic() < end_s, f"no {what} in:\n{self.output}"
            time.sleep(0.05)
        return self

    def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Waits until the process ends; returns its exit code."""
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, f"still runs:\n{self.output}"
        return self._process.exitcode

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def interrupt(self) -> None:
        self._signal(signal.SIGINT)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def hang_up(self) -> None:
        self._signal(signal.SIGHUP)

    def _signal(self, number: signal.Signals) -> None:
        """A fork ignores signals until it has taken its arguments."""
        assert self._began.poll(PATIENCE_S)
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._last = self.output
        self._file.unlink(missing_ok=True)

    def memory_mb(self) -> float:
        import psutil

        return psutil.Process(self.pid).memory_info().rss / 1e6

    def threads_and_files(self) -> tuple[int, int]:
        """Number of threads and of open files."""
        import psutil

        process = psutil.Process(self.pid)
        return process.num_threads(), process.num_fds()
