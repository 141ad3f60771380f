"""Options and fixtures of all tests, and the rule for tests that need a program or data from outside the repository.

`pytest` runs every test but those marked `campaign`. `pytest --campaign` runs the rest: the tests with the mark, and
each property test with many examples.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import is_hypothesis_test, settings

# Examples are the same in every run, and no test asserts a duration because machines are noisy.
settings.register_profile("default", deadline=None, derandomize=True, database=None, max_examples=25)
settings.register_profile("campaign", settings.get_profile("default"), max_examples=150)

REQUIRED = set(filter(None, os.environ.get("SAGELINK_REQUIRE", "").split(",")))
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--campaign", action="store_true", help="run what `make test` leaves out: long tests, many examples"
    )


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("campaign" if config.getoption("campaign") else "default")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    campaign = config.getoption("campaign")
    selected, deselected = [], []
    for item in items:
        marked = item.get_closest_marker("campaign") is not None
        wanted = marked or is_hypothesis_test(getattr(item, "obj", None)) if campaign else not marked
        (selected if wanted else deselected).append(item)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = selected


def skip_or_fail(need: str, reason: str) -> None:
    """Skips the test because `need` is missing; fails it when SAGELINK_REQUIRE names `need`."""
    if need in REQUIRED:
        pytest.fail(f"{reason}, and SAGELINK_REQUIRE names {need!r}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights, photographs and clips beside the checkout."""
    if not (SHARED / "weights").is_dir():
        skip_or_fail("data", "no data folder ../shared")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _no_camera_thread_left() -> Iterator[None]:
    """Waits for camera threads: Python aborts at exit while a thread is inside OpenCV. The command calls os._exit."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("sagelink-camera"):
            thread.join(timeout=15)


@pytest.fixture(scope="session", autouse=True)
def _own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What live runs keep for the next one stays out of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


class RtspServer:
    """GStreamer's RTSP server as a process. A test can kill it, restart it on the same port, or freeze it."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self._port = "0"
        self.start()

    def start(self) -> None:
        script = Path(__file__).with_name("rtsp_server.py")
        command = ["/usr/bin/python3", script, "--port", self._port, *self._options]
        try:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            skip_or_fail("rtsp", f"no system Python for GStreamer's RTSP server: {error}")
        port = self.process.stdout.readline().strip()
        if not port:
            skip_or_fail("rtsp", f"no RTSP server: {self.process.stderr.read().splitlines()[-1:]}")
        self._port = port

    def url(self, user: str = "", path: str = "/live") -> str:
        return f"rtsp://{user and user + '@'}127.0.0.1:{self._port}{path}"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def rtsp_server() -> Iterator[Callable[..., RtspServer]]:
    """Starts servers that stream live 160x120 H.264 video at 20 frames/s; the options are those of rtsp_server.py."""
    servers: list[RtspServer] = []

    def start(*options: str) -> RtspServer:
        servers.append(RtspServer(*options))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def rtsp_url(rtsp_server: Callable[..., RtspServer]) -> str:
    return rtsp_server().url()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs `sagelink` with arguments in this process; returns its exit code and its output."""

    def run(*arguments: object) -> tuple[int, str]:
        from sagelink.app import cli

        monkeypatch.setattr(sys, "argv", ["sagelink", *map(str, arguments)])
        code = cli._run_app()
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run
