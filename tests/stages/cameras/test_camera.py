"""Cameras that fail and come back: against a real RTSP server, and openers that hang, stall or lie."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sagelink.pipeline.config import CameraConfig
from sagelink.pipeline.types import Frame
from sagelink.stages.cameras.camera import Camera
from sagelink.stages.cameras.contract import Grabbed
from sagelink.stages.cameras.faults import CameraFault
from sagelink.stages.cameras.open import connect
from sagelink.stages.cameras.supervisor import CameraState, Fault, Patience, Supervisor
from sagelink.stages.cameras.with_opencv import _OPENING
from tests.stages.test_sources import write_video

BACKENDS = ("opencv", "pyav")
ENDED_WELL = {"state": "ended", "fault": None, "connections": 1, "recoveries": 0, "missed": 0}


def config(source: str, **options: Any) -> CameraConfig:
    return CameraConfig(name="gate", source=source, **options)


async def until(
    camera: Camera, frames: AsyncIterator[Frame], enough: Callable[[Frame], bool], within_s: float
) -> Frame:
    """The first frame for which `enough` is true; fails with the camera's health when there is none in time."""
    try:
        async with asyncio.timeout(within_s):
            async for frame in frames:
                if enough(frame):
                    return frame
    except TimeoutError:
        pytest.fail(f"no such frame within {within_s} s: {camera.health()}")
    pytest.fail(f"the camera ended: {camera.health()}")


async def stopped(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def becomes(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (what is looked at tells nobody)
            await asyncio.sleep(0.01)


def reader_threads() -> int:
    return sum(thread.name.startswith("sagelink-camera") for thread in threading.enumerate())


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_server_that_is_killed_and_comes_back(rtsp_server, caplog, backend: str) -> None:
    server = rtsp_server()
    camera = Camera(config(server.url(), backend=backend, open_timeout=3, read_timeout=3))
    async with aclosing(aiter(camera)) as frames:
        first = await until(camera, frames, lambda frame: frame.seq == 5, 15)
        assert first.pixels.shape == (120, 160, 3)
        server.kill()
        task = asyncio.ensure_future(anext(frames))
        while camera.state is not CameraState.BACKOFF:
            await asyncio.sleep(0.01)
            if task.done():  # those that were on their way
                task = asyncio.ensure_future(anext(frames))
        server.start()
        async with asyncio.timeout(15):
            frame = await task
        again = await until(camera, frames, lambda each: each.seq > frame.seq + 3, 15)
    assert again.capture_ns > first.capture_ns
    assert again.stream_s > first.stream_s
    health = camera.health()
    assert (health["state"], health["recoveries"]) == ("ended", 1)
    assert caplog.text.count("event=down") == caplog.text.count("event=recovered") == 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_frozen_server_is_a_stall_and_no_more_if_it_thaws(rtsp_server, backend: str) -> None:
    server = rtsp_server()
    camera = Camera(config(server.url(), backend=backend, stall_after=0.5, read_timeout=20))
    async with aclosing(aiter(camera)) as frames:
        await until(camera, frames, lambda frame: frame.seq == 5, 15)
        server.freeze()
        task = asyncio.ensure_future(until(camera, frames, lambda frame: False, 60))
        await becomes(lambda: camera.state is CameraState.STALLED)
        before = camera.captured
        server.thaw()
        await becomes(lambda: camera.captured >= before + 5)
        await stopped(task)
    health = camera.health()
    assert (health["connections"], health["recoveries"], health["fault"]) == (1, 0, None)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_server_that_stays_frozen_is_left_and_replaced(rtsp_server, backend: str) -> None:
    server = rtsp_server()
    camera = Camera(config(server.url(), backend=backend, stall_after=0.3, read_timeout=1, open_timeout=3))
    async with aclosing(aiter(camera)) as frames:
        await until(camera, frames, lambda frame: frame.seq == 5, 15)
        server.freeze()
        task = asyncio.ensure_future(until(camera, frames, lambda frame: False, 60))
        await becomes(lambda: camera.state in (CameraState.BACKOFF, CameraState.CONNECTING))
        assert camera.health()["fault"] == "timed out"
        before = camera.captured
        server.thaw()
        await becomes(lambda: camera.captured >= before + 5)
        await stopped(task)
    assert camera.health()["recoveries"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_faults_are_told_apart(rtsp_server, backend: str, caplog) -> None:
    server = rtsp_server("--password", "geheim")
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as silent, answering(plain_text) as plain:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        cases = {
            server.url(): "unauthorised",
            server.url("viewer:falsch"): "unauthorised",
            server.url("viewer:geheim", "/other"): "not found",
            f"rtsp://viewer:geheim@127.0.0.1:{closed.getsockname()[1]}/live": "refused",
            f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live": "timed out",
            f"rtsps://127.0.0.1:{plain}/live": "tls",
            f"https://127.0.0.1:{plain}/live": "tls",
            "rtsp://no-such-host.invalid/live": "unreachable",
        }
        cameras = [Camera(config(url, backend=backend, open_timeout=2)) for url in cases]
        tasks = [asyncio.ensure_future(until(camera, aiter(camera), bool, 60)) for camera in cameras]
        await becomes(lambda: all(camera.health()["fault"] for camera in cameras))
        found = [camera.health()["fault"] for camera in cameras]
        await stopped(*tasks)
    assert found == list(cases.values())
    assert "geheim" not in caplog.text
    assert "falsch" not in caplog.text


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """A port where a server has an answer, or none, to whatever anybody says; in the end it hangs up."""
    peers: list[socket.socket] = []

    def talk(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while said := peer.recv(4096):
                peer.sendall(answer(said))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peers.append(server.accept()[0])
                threading.Thread(target=talk, args=peers[-1:], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        for each in (server, *peers):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def plain_text(said: bytes) -> bytes:
    return b"HTTP/1.0 400 what?\r\n\r\n"


def half_dead(said: bytes) -> bytes:
    """An RTSP server that says what it could do, and does none of it."""
    number = said.partition(b"CSeq: ")[2].split(b"\r\n")[0]
    return b"RTSP/1.0 200 OK\r\nCSeq: %s\r\nPublic: DESCRIBE\r\n\r\n" % number if said[:7] == b"OPTIONS" else b""


async def test_a_server_that_falls_silent_in_mid_opening_keeps_nobody(rtsp_server) -> None:
    """OpenCV opens one stream at a time: whoever comes meanwhile is read by the other library."""
    with answering(half_dead) as port:
        silent = Camera(config(f"rtsp://127.0.0.1:{port}/live", open_timeout=60))
        opening = asyncio.ensure_future(until(silent, aiter(silent), bool, 60))
        await becomes(_OPENING.locked)
        camera = Camera(config(rtsp_server().url()), max_frames=3)
        async with asyncio.timeout(30):
            assert len([frame async for frame in camera]) == 3
        assert silent.health() | {"missed": 0} == ENDED_WELL | {"state": "connecting"}
        await stopped(opening)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_password_opens(rtsp_server, backend: str) -> None:
    server = rtsp_server("--password", "geheim")
    camera = Camera(config(server.url("viewer:geheim"), backend=backend), max_frames=3)
    async with asyncio.timeout(20):
        frames = [frame async for frame in camera]
    assert [frame.seq for frame in frames] == [0, 1, 2]
    assert "geheim" not in camera.source


async def test_a_picture_that_changes_its_size_in_mid_stream(rtsp_server) -> None:
    server = rtsp_server("--grow-after", "2")
    camera = Camera(config(server.url(), backend="pyav", roi=(0, 0, 0.5, 1)))
    async with aclosing(aiter(camera)) as frames:
        small = await anext(frames)
        large = await until(camera, frames, lambda frame: frame.pixels.shape[0] == 240, 20)
    assert small.pixels.shape == (120, 80, 3)
    assert large.pixels.shape == (240, 160, 3)
    assert camera.health()["connections"] == 1


async def test_opencv_keeps_the_first_size(rtsp_server) -> None:
    server = rtsp_server("--grow-after", "1")
    camera = Camera(config(server.url()), duration_s=4)
    async with asyncio.timeout(20):
        shapes = {frame.pixels.shape async for frame in camera}
    assert shapes == {(120, 160, 3)}
    assert camera.captured > 30


@pytest.mark.parametrize("backend", BACKENDS)
async def test_the_decoder_holds_no_picture_back(tmp_path: Path, backend: str) -> None:
    """All but the last two: their ends are only known when the next begins. A thread more would keep one more each."""
    clip = write_video(tmp_path / "clip.ts", 30).read_bytes()
    with answering(lambda said: b"HTTP/1.0 200 OK\r\n\r\n" + clip) as port:
        address = f"http://127.0.0.1:{port}/live.ts"
        connection = connect(config(address, backend=backend, read_timeout=60))
        async with asyncio.timeout(30):
            await asyncio.to_thread(lambda: [connection.grab() for _ in range(28)])
        connection.close()


async def test_opencv_says_nothing_on_its_own(rtsp_server, capfd) -> None:
    camera = Camera(config(rtsp_server().url("u:geheim", "/nowhere")))
    task = asyncio.ensure_future(until(camera, aiter(camera), bool, 60))
    await becomes(lambda: camera.health()["fault"] == "not found")
    await stopped(task)
    assert capfd.readouterr() == ("", "")


class Scripted:
    """A connection that gives 100 pictures a second, or does what a test says."""

    finite = False
    skipped = 0

    def __init__(self, script: Callable[[int], None] = lambda index: None) -> None:
        self._script = script
        self._index = 0
        self.closed = False

    def grab(self) -> Grabbed:
        time.sleep(0.01)
        self._script(self._index)
        self._index += 1
        return Grabbed(self._index / 100)

    def picture(self) -> np.ndarray:
        return np.full((4, 4, 3), self._index % 256, np.uint8)

    def close(self) -> None:
        self.closed = True


async def test_what_a_thread_that_was_left_delivers_later_is_never_seen() -> None:
    stuck, opened = threading.Event(), []

    def hang(index: int) -> None:
        if index == 3:
            stuck.wait(20)

    def opener(_: CameraConfig) -> Scripted:
        opened.append(Scripted(hang) if not opened else Scripted())
        opened[-1]._index = 0 if len(opened) == 1 else 100
        return opened[-1]

    camera = Camera(config("rtsp://host/x", stall_after=0.1, read_timeout=0.3), opener=opener)
    seen: list[int] = []
    async with aclosing(aiter(camera)) as frames:
        while len(seen) < 20:
            async with asyncio.timeout(10):
                seen.append(int((await anext(frames)).pixels[0, 0, 0]))
            if len(opened) == 2:
                stuck.set()
    assert [value for value in seen if value < 100] == sorted(value for value in seen if value <= 3)
    assert seen[-1] > 100
    await becomes(lambda: all(connection.closed for connection in opened) and not reader_threads())


async def test_a_thread_that_hangs_in_open_keeps_nobody() -> None:
    stuck = threading.Event()

    def hangs(_: CameraConfig) -> Scripted:
        stuck.wait(20)
        return Scripted()

    camera = Camera(config("rtsp://host/x"), duration_s=0.2, opener=hangs)
    began = time.monotonic()
    assert [frame async for frame in camera] == []
    assert time.monotonic() - began < 5
    assert camera.health()["state"] == "ended"
    stuck.set()


async def test_threads_that_never_come_back_do_not_pile_up() -> None:
    stuck, opened = threading.Event(), []

    def hangs(_: CameraConfig) -> Scripted:
        opened.append(1)
        stuck.wait(30)
        return Scripted()

    options = {"open_timeout": 0.01, "read_timeout": 0.01, "stall_after": 0.01}
    camera = Camera(config("rtsp://host/x", **options), opener=hangs)
    quick = Patience(**options, first_wait=0.01, longest_wait=0.01, native_grace=0.01)
    camera._supervisor = Supervisor(quick, time.monotonic())
    task = asyncio.ensure_future(until(camera, aiter(camera), bool, 60))
    await becomes(lambda: camera.health()["connections"] >= 12)
    assert len(opened) == 4
    stuck.set()
    await task
    assert camera.health()["recoveries"] == 1


async def test_frames_left_out_by_sampling_are_no_stall() -> None:
    camera = Camera(
        config("rtsp://host/x", fps=2, stall_after=0.1, read_timeout=0.2), max_frames=3, opener=lambda _: Scripted()
    )
    async with asyncio.timeout(10):
        frames = [frame async for frame in camera]
    gaps = np.diff([frame.capture_ns for frame in frames]) / 1e9
    assert (abs(gaps - 0.5) < 0.2).all()
    assert camera.health()["connections"] == 1


async def test_a_slow_taker_gets_the_newest_picture() -> None:
    camera = Camera(config("rtsp://host/x"), opener=lambda _: Scripted())
    ages_ms = []
    async with aclosing(aiter(camera)) as frames:
        for _ in range(5):
            frame = await anext(frames)
            ages_ms.append(frame.age_ms(time.monotonic_ns()))
            time.sleep(0.2)  # noqa: ASYNC251 (a loop that is busy)
    assert max(ages_ms) < 200
    assert camera.health()["missed"] > 20


async def test_a_library_that_raises_what_nobody_foresaw(caplog) -> None:
    opened: list[Scripted] = []

    def strange(index: int) -> None:
        if index == 2:
            raise MemoryError("odd")

    def opener(_: CameraConfig) -> Scripted:
        opened.append(Scripted(strange if not opened else lambda index: None))
        return opened[-1]

    camera = Camera(config("rtsp://user:geheim@host/x?token=geheim"), max_frames=6, opener=opener)
    async with asyncio.timeout(10):
        assert len([frame async for frame in camera]) == 6
    assert "MemoryError" in caplog.text
    assert "geheim" not in caplog.text
    assert opened[0].closed


async def test_a_finite_stream_ends_the_camera_and_a_camera_that_closes_does_not() -> None:
    def stops(index: int) -> None:
        if index == 4:
            raise CameraFault(Fault.END_OF_FILE)

    class Film(Scripted):
        finite = True

    film = Camera(config("http://host/film.mp4"), opener=lambda _: Film(stops))
    async with asyncio.timeout(10):
        frames = [frame async for frame in film]
    assert len(frames) + film.health()["missed"] == 4  # a busy machine may overtake one
    assert film.health() | {"missed": 0} == ENDED_WELL
    camera = Camera(config("http://host/live.mjpg"), max_frames=10, opener=lambda _: Scripted(stops))
    async with asyncio.timeout(10):
        assert len([frame async for frame in camera]) == 10
    assert camera.health()["recoveries"] >= 2


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_mjpeg_stream_over_http(mjpeg_url: str, backend: str) -> None:
    """A real server on loopback that closes after 30 pictures: the camera connects again and goes on."""
    camera = Camera(config(mjpeg_url, backend=backend))
    async with aclosing(aiter(camera)) as frames:
        first = await until(camera, frames, bool, 20)
        await until(camera, frames, lambda _: camera.health()["recoveries"] >= 1, 20)
    assert first.pixels.shape == (48, 64, 3)


@pytest.fixture
def mjpeg_url() -> Iterator[str]:
    server = subprocess.Popen([sys.executable, "-c", _MJPEG_SERVER], stdout=subprocess.PIPE, text=True)
    yield f"http://127.0.0.1:{int(server.stdout.readline())}/live.mjpg"
    server.kill()
    server.communicate()


_MJPEG_SERVER = """
import io, http.server
from PIL import Image

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for i in range(30):
            out = io.BytesIO()
            Image.new("RGB", (64, 48), (8 * i, 0, 0)).save(out, "JPEG")
            data = out.getvalue()
            head = f"--frame\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: {len(data)}\\r\\n\\r\\n"
            self.wfile.write(head.encode() + data + b"\\r\\n")
    def log_message(self, *args):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def http_folder(tmp_path: Path) -> Iterator[str]:
    """The address of a web server with the test's folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_finite_video_behind_a_url_plays_once_at_its_own_pace(
    tmp_path: Path, http_folder: str, backend: str
) -> None:
    write_video(tmp_path / "clip.mp4", 15)
    camera = Camera(config(f"{http_folder}/clip.mp4", backend=backend))
    async with asyncio.timeout(20):
        frames = [frame async for frame in camera]
    assert camera.health() | {"missed": 0} == ENDED_WELL
    assert len(frames) + camera.health()["missed"] == 15
    assert frames[-1].stream_s > 1.2
    tenths = np.diff([frame.pts_s for frame in frames]) * 10
    assert np.allclose(tenths, np.round(tenths), atol=1e-2)
    assert (tenths > 0.9).all()


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_is_not_a_video_behind_a_url(tmp_path: Path, http_folder: str, backend: str) -> None:
    (tmp_path / "page.html").write_text("<p>no video</p>" * 500)
    camera = Camera(config(f"{http_folder}/page.html", backend=backend))
    task = asyncio.ensure_future(until(camera, aiter(camera), bool, 60))
    await becomes(lambda: camera.health()["fault"] is not None)
    await stopped(task)
    assert camera.health()["fault"] == "codec"


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_broken_stretch_in_a_stream_is_passed(tmp_path: Path, http_folder: str, backend: str) -> None:
    """One group of pictures of noise in the middle: what comes after it is there."""
    path = write_video(tmp_path / "clip.mp4", 40)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for packet in packets[10:15]:
        start = data.index(packet)
        data[start : start + len(packet)] = np.random.default_rng(0).bytes(len(packet))
    path.write_bytes(data)
    camera = Camera(config(f"{http_folder}/clip.mp4", backend=backend))
    async with asyncio.timeout(30):
        frames = [frame async for frame in camera]
    assert 30 <= len(frames) + camera.health()["missed"] < 40
    assert camera.skipped >= 2
    assert float(frames[-1].pixels.mean()) > 195
