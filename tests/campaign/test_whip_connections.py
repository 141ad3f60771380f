"""Other programs connect to a WHIP camera many times in a row: every connection must come up and deliver frames.

`SAGELINK_WHIP_TIMES` sets the number of connections of each program (default 3). npm packages are looked for in
`SAGELINK_NODE_MODULES`. `SAGELINK_WHIP_FFMPEG` names an ffmpeg program with a WHIP muxer, beside the FFmpeg of PyAV.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.browsers import chromium
from tests.conftest import skip_or_fail
from tests.stages.cameras.test_whip_camera import RunningCamera, config
from tests.stages.cameras.test_whip_peers import TESTS, ffmpeg_command, need_webrtcbin, started

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]

TIMES = int(os.environ.get("SAGELINK_WHIP_TIMES", "3"))
FRAMES = 5  # of each connection
WHITE = 230  # the mean of a white picture, also where 235 is taken for it
PAGE = """<!doctype html><canvas id=canvas width=160 height=120></canvas><script>
async function push(url) {
  const canvas = document.getElementById('canvas'), context = canvas.getContext('2d')
  const drawing = setInterval(() => { context.fillStyle = 'white'; context.fillRect(0, 0, 160, 120) }, 50)
  const peer = new RTCPeerConnection()
  peer.addTrack(canvas.captureStream(20).getTracks()[0])
  await peer.setLocalDescription(await peer.createOffer())
  await new Promise(done => {
    if (peer.iceGatheringState === 'complete') done()
    peer.onicegatheringstatechange = () => peer.iceGatheringState === 'complete' && done()
  })
  const answer = await fetch(url, {
    method: 'POST', body: peer.localDescription.sdp, headers: {'Content-Type': 'application/sdp'}})
  await peer.setRemoteDescription({type: 'answer', sdp: await answer.text()})
  window.leave = async () => {
    await fetch(new URL(answer.headers.get('Location'), url), {method: 'DELETE'})
    peer.close(); clearInterval(drawing)
  }
}
</script>"""


async def until_frames_arrive(running: RunningCamera, output: asyncio.Task[str] | None = None) -> None:
    """Waits for some further frames, and checks that the last is white and that all are numbered without a gap.
    `output` ends with the program that pushes, and must not end before."""
    wanted = len(running.frames) + FRAMES
    await running.becomes(lambda: len(running.frames) >= wanted or (output is not None and output.done()))
    assert output is None or not output.done(), output.result()
    assert running.frames[-1].pixels.mean() > WHITE
    assert [frame.seq for frame in running.frames] == [*range(len(running.frames))]


async def push_in_turn(*command: object) -> None:
    """Runs a program that pushes until it is ended, again and again. `URL` among its arguments is the camera's."""
    async with RunningCamera(config()) as running:
        for _ in range(TIMES):
            with started(*(running.endpoint.url if part == "URL" else part for part in command)) as pushing:
                assert pushing.stdout is not None
                output = asyncio.create_task(asyncio.to_thread(pushing.stdout.read))
                await until_frames_arrive(running, output)
                pushing.terminate()
                await output


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_gstreamer(codec: str) -> None:
    await need_webrtcbin()
    await push_in_turn("/usr/bin/python3", TESTS / "push_gstreamer.py", "URL", codec)


async def test_ffmpeg() -> None:
    await push_in_turn(*ffmpeg_command())


async def test_an_ffmpeg_program() -> None:
    program = os.environ.get("SAGELINK_WHIP_FFMPEG", "")
    if not program:
        skip_or_fail("whip-ffmpeg", "no program in SAGELINK_WHIP_FFMPEG")
    pictures = ["-re", "-f", "lavfi", "-i", "color=white:size=160x120:rate=20"]
    coded = ["-c:v", "libx264", "-profile:v", "baseline", "-tune", "zerolatency", "-g", "20"]
    await push_in_turn(program, *pictures, *coded, "-f", "whip", "URL")


@pytest.mark.parametrize("package", ["node-datachannel", "werift"])
async def test_peers_of_node(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = os.environ.get("SAGELINK_NODE_MODULES", "")
    if not modules or not (Path(modules) / package).is_dir():
        skip_or_fail(package, f"no {package}")
    monkeypatch.setenv("NODE_PATH", modules)
    await push_in_turn("node", TESTS / "push_node.cjs", package, "URL", white_picture().hex())


def white_picture() -> bytes:
    """A VP8 key frame of 160x120 pixels."""
    encoder = av.VideoCodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 160, 120, "yuv420p", Fraction(1, 20)
    picture = av.VideoFrame.from_ndarray(np.full((120, 160, 3), 255, np.uint8), format="rgb24")
    (packet,) = [*encoder.encode(picture), *encoder.encode(None)]
    return bytes(packet)


class PageHandler(http.server.BaseHTTPRequestHandler):
    """Serves the page that pushes."""

    def do_GET(self) -> None:  # (the name is of http.server)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def other_site() -> Iterator[str]:
    """The origin of a site that is not the camera's."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), PageHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_chromium_from_another_site() -> None:
    with other_site() as origin:
        async with RunningCamera(config(push_origins=(origin,))) as running:
            steps: list[threading.Event] = [threading.Event() for _ in range(2 * TIMES)]

            def browse() -> None:
                with chromium() as browser:
                    page = browser.new_page()
                    page.goto(origin)
                    for number in range(TIMES):
                        page.evaluate("url => push(url)", running.endpoint.url)
                        steps[2 * number].set()
                        steps[2 * number + 1].wait(60)
                        page.evaluate("leave()")

            browsing = asyncio.create_task(asyncio.to_thread(browse))
            for number in range(TIMES):
                while not steps[2 * number].is_set() and not browsing.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                if not browsing.done():
                    await until_frames_arrive(running)
                steps[2 * number + 1].set()
            await browsing
