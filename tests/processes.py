"""Real `sagelink` processes for tests, with their output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self


class Sagelink:
    """One `sagelink ...` process. Leaving the context kills it if it still runs."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        self.output = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sagelink.app.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"} | environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.output += line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def said(self, text: str, timeout_s: float = 150) -> Self:
        """Waits until the output contains `text`."""
        end_s = time.monotonic() + timeout_s
        while text not in self.output:
            assert self._process.poll() is None or text in self.output, f"ended without {text!r}:\n{self.output}"
            assert time.monotonic() < end_s, f"no {text!r} in:\n{self.output}"
            time.sleep(0.02)
        return self

    def ended(self, timeout_s: float = 120) -> int:
        """Waits until the process ends; returns its exit code."""
        code = self._process.wait(timeout_s)
        self._reader.join(5)
        return code

    @property
    def pid(self) -> int:
        return self._process.pid

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def hang_up(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        self._process.stdout.close()

    def memory_mb(self) -> float:
        import psutil

        return psutil.Process(self._process.pid).memory_info().rss / 1e6

    def threads_and_files(self) -> tuple[int, int]:
        """Number of threads and of open files."""
        import psutil

        process = psutil.Process(self._process.pid)
        return process.num_threads(), process.num_fds()
