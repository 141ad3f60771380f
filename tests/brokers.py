"""A real mosquitto broker on a free port. A test can kill, freeze and restart it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from bench.ports import free_port
from tests.conftest import skip_or_fail

_PROGRAM = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


class Mosquitto:
    """A broker that listens on loopback; `settings` are additional lines of its configuration."""

    def __init__(self, *settings: str, port: int | None = None, scheme: str = "mqtt", host: str = "127.0.0.1") -> None:
        if _PROGRAM is None:
            skip_or_fail("mosquitto", "no mosquitto")
        self.host = host
        self.port = port or free_port()
        self._scheme = scheme
        self._settings = settings or ("allow_anonymous true",)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._folder is not None:
            self._folder.cleanup()

    def start(self) -> None:
        self._folder = self._folder or tempfile.TemporaryDirectory()
        config = Path(self._folder.name) / "mosquitto.conf"
        config.write_text("\n".join(["user root", f"listener {self.port} {self.host}", *self._settings, ""]))
        log_path = config.with_suffix(".log")
        with log_path.open("wb") as log:
            self._process = subprocess.Popen([_PROGRAM, "-c", config], stdout=log, stderr=log)
        for _ in range(200):
            try:
                socket.create_connection((self.host, self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, f"mosquitto has ended: {log_path.read_text()}"
                time.sleep(0.02)
        raise AssertionError("mosquitto does not listen")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)
