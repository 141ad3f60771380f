"""What tests need from outside the repository, and how they say that it is not there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REQUIRED = set(filter(None, os.environ.get("SAGELINK_REQUIRE", "").split(",")))
SHARED = Path(__file__).resolve().parents[2] / "shared"


def skip_or_fail(need: str, reason: str) -> None:
    """Skips the test, or fails it where SAGELINK_REQUIRE says that `need` must be there."""
    if need in REQUIRED:
        pytest.fail(f"{reason}, and SAGELINK_REQUIRE names {need!r}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights, photographs and clips beside the checkout."""
    if not (SHARED / "weights").is_dir():
        skip_or_fail("data", "no data folder ../shared")
    return SHARED


@pytest.fixture
def rtsp_url() -> Iterator[str]:
    """A live 160x120 H.264 stream, 20 frames/s, from GStreamer's RTSP server."""
    script = Path(__file__).with_name("rtsp_server.py")
    try:
        server = subprocess.Popen(
            ["/usr/bin/python3", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        skip_or_fail("rtsp", f"no system Python for GStreamer's RTSP server: {error}")
        raise
    try:
        port = server.stdout.readline().strip()
        if not port:
            skip_or_fail("rtsp", f"no RTSP server: {server.stderr.read().splitlines()[-1:]}")
        yield f"rtsp://127.0.0.1:{port}/live"
    finally:
        server.kill()
        server.communicate()
