"""Other programs that push to a WHIP camera: GStreamer's webrtcbin, FFmpeg's WHIP muxer, and a page of another site."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import skip_or_fail
from tests.stages.cameras.test_whip_camera import RunningCamera, config

TESTS = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def started(*command: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def need_webrtcbin() -> None:
    gi = "import gi; [gi.require_version(f'Gst{part}', '1.0') for part in ('', 'Sdp', 'WebRTC')]"
    have = await asyncio.to_thread(subprocess.run, ["/usr/bin/python3", "-c", gi], capture_output=True, check=False)
    if have.returncode:
        skip_or_fail("webrtcbin", "no GStreamer webrtcbin for the system's Python")


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_gstreamer_pushes(codec: str) -> None:
    await need_webrtcbin()
    async with RunningCamera(config()) as running:
        with started("/usr/bin/python3", TESTS / "push_gstreamer.py", running.endpoint.url, codec):
            await running.becomes(lambda: len(running.frames) >= 5)
            assert running.shows(255 if codec == "VP8" else 235) or running.shows(255)


def ffmpeg_command() -> list[object]:
    """PyAV's FFmpeg, which pushes to `URL`."""
    import av

    if "whip" not in av.formats_available:
        skip_or_fail("whip", "PyAV without a WHIP muxer")
    return [sys.executable, TESTS / "push_ffmpeg.py", "URL"]


async def test_ffmpeg_pushes() -> None:
    async with RunningCamera(config()) as running:
        with started(*(running.endpoint.url if part == "URL" else part for part in ffmpeg_command())):
            await running.becomes(lambda: len(running.frames) >= 5)
            assert running.shows(255)


async def test_only_a_page_of_an_allowed_site_may_push() -> None:
    allowed, other = "https://site.example", "https://elsewhere.example"
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    async with (
        RunningCamera(config(push_origins=(allowed,))) as running,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        url = running.endpoint.url
        preflight = await client.options(url, headers={"Origin": allowed} | ask)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == allowed
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert (await client.options(url, headers={"Origin": other} | ask)).status_code == 400
        content = {"Content-Type": "application/sdp"}
        refused = await client.post(url, content=b"x", headers={"Origin": other} | content)
        assert refused.status_code == 403
        read = await client.post(url, content=b"x", headers={"Origin": allowed} | content)
        assert read.status_code == 400  # not an offer, but it was read
        assert "Location" in read.headers["access-control-expose-headers"]
