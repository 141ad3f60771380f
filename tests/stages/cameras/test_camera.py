"""Cameras that fail and recover: against a real RTSP server, and with connections that hang, stall or fail.

No test asserts how long something takes. `GUARD_S` only ends a test that would wait forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import shutil
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

from bench.ports import free_port
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.types import Frame
from sagelink.stages.cameras.camera import Camera
from sagelink.stages.cameras.contract import Grabbed
from sagelink.stages.cameras.fault_kinds import CameraFault
from sagelink.stages.cameras.open import connect
from sagelink.stages.cameras.supervisor import CameraState, CameraTimeouts, FaultKind
from sagelink.stages.cameras.with_opencv import _OPENING
from tests.conftest import skip_or_fail
from tests.stages.test_sources import write_video

BACKENDS = ("opencv", "pyav")
GUARD_S = 60
ENDED_WITHOUT_FAULT = {"state": "ended", "fault": None, "connections": 1, "recoveries": 0, "missed": 0}


def config(source: str, **options: Any) -> CameraConfig:
    return CameraConfig(name="gate", source=source, **options)


async def until(camera: Camera, frames: AsyncIterator[Frame], condition: Callable[[Frame], bool]) -> Frame:
    """The first frame that meets the condition; fails with the camera's health when there is none."""
    try:
        async with asyncio.timeout(GUARD_S):
            async for frame in frames:
                if condition(frame):
                    return frame
    except TimeoutError:
        pytest.fail(f"no such frame: {camera.health()}")
    pytest.fail(f"the camera ended: {camera.health()}")


async def stopped(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(GUARD_S):
        while not condition():  # noqa: ASYNC110 (no event for every condition)
            await asyncio.sleep(0.005)


def reader_threads() -> int:
    return sum(thread.name.startswith("sagelink-camera") for thread in threading.enumerate())


@pytest.mark.parametrize("backend", BACKENDS)
async def test_the_camera_recovers_when_a_killed_server_returns(rtsp_server, caplog, backend: str) -> None:
    server = rtsp_server()
    camera = Camera(config(server.url(), backend=backend, open_timeout=3, read_timeout=3))
    async with aclosing(aiter(camera)) as frames:
        first = await until(camera, frames, lambda frame: frame.seq == 5)
        assert first.pixels.shape == (120, 160, 3)
        server.kill()
        task = asyncio.ensure_future(anext(frames))
        while camera.state is not CameraState.BACKOFF:
            await asyncio.sleep(0.01)
            if task.done():  # a frame that was still on its way
                task = asyncio.ensure_future(anext(frames))
        server.start()
        async with asyncio.timeout(GUARD_S):
            frame = await task
        again = await until(camera, frames, lambda later: later.seq > frame.seq + 3)
    assert again.capture_ns > first.capture_ns
    assert again.stream_s > first.stream_s
    health = camera.health()
    assert (health["state"], health["recoveries"]) == ("ended", 1)
    assert caplog.text.count("event=down") == caplog.text.count("event=recovered") == 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_film_behind_rtsp_that_ends_does_not_end_the_camera(rtsp_server, tmp_path: Path, backend: str) -> None:
    """The server states the length of the stream, and ends it after 20 pictures."""
    film = write_video(tmp_path / "film.mp4", 20)
    camera = Camera(config(rtsp_server("--film", str(film)).url(), backend=backend, read_timeout=2))
    async with aclosing(aiter(camera)) as frames:
        await until(camera, frames, lambda frame: camera.health()["recoveries"] == 1)
    assert camera.health()["state"] == "ended"  # only by this test


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_server_that_freezes_for_a_moment_is_a_stall_without_reconnection(rtsp_server, backend: str) -> None:
    server = rtsp_server()
    camera = Camera(config(server.url(), backend=backend, stall_after=0.5, read_timeout=20))
    async with aclosing(aiter(camera)) as frames:
        await until(camera, frames, lambda frame: frame.seq == 5)
        server.freeze()
        task = asyncio.ensure_future(until(camera, frames, lambda frame: False))
        await becomes(lambda: camera.state is CameraState.STALLED)
        before = camera.captured
        server.thaw()
        await becomes(lambda: camera.captured >= before + 5)
        await stopped(task)
    health = camera.health()
    assert (health["connections"], health["recoveries"], health["fault"]) == (1, 0, None)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_server_that_stays_frozen_is_connected_again(rtsp_server, backend: str) -> None:
    server = rtsp_server()
    camera = Camera(config(server.url(), backend=backend, stall_after=0.3, read_timeout=0.7, open_timeout=3))
    async with aclosing(aiter(camera)) as frames:
        await until(camera, frames, lambda frame: frame.seq == 5)
        server.freeze()
        task = asyncio.ensure_future(until(camera, frames, lambda frame: False))
        await becomes(lambda: camera.state in (CameraState.BACKOFF, CameraState.CONNECTING))
        assert camera.health()["fault"] == "timed out"
        before = camera.captured
        server.thaw()
        await becomes(lambda: camera.captured >= before + 5)
        await stopped(task)
    assert camera.health()["recoveries"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_each_kind_of_fault_is_recognised(rtsp_server, backend: str, caplog) -> None:
    server = rtsp_server("--password", "geheim")
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as silent, answering(plain_text) as plain:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses connections
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
        cameras = [Camera(config(url, backend=backend, open_timeout=1)) for url in cases]
        tasks = [asyncio.ensure_future(until(camera, aiter(camera), bool)) for camera in cameras]
        await becomes(lambda: all(camera.health()["fault"] for camera in cameras))
        found = [camera.health()["fault"] for camera in cameras]
        await stopped(*tasks)
    assert found == list(cases.values())
    assert "geheim" not in caplog.text
    assert "falsch" not in caplog.text


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """The port of a server that answers each request with `answer(request)`, and closes its connections at the end."""
    peers: list[socket.socket] = []

    def talk(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while request := peer.recv(4096):
                peer.sendall(answer(request))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peers.append(server.accept()[0])
                threading.Thread(target=talk, args=peers[-1:], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        for open_socket in (server, *peers):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)


def plain_text(request: bytes) -> bytes:
    return b"HTTP/1.0 400 what?\r\n\r\n"


def options_only(request: bytes) -> bytes:
    """An RTSP server that answers OPTIONS and nothing else."""
    number = request.partition(b"CSeq: ")[2].split(b"\r\n")[0]
    return b"RTSP/1.0 200 OK\r\nCSeq: %s\r\nPublic: DESCRIBE\r\n\r\n" % number if request[:7] == b"OPTIONS" else b""


@pytest.mark.parametrize("ignored", ["hang", "close", "rubbish"])
async def test_a_server_that_does_not_answer_the_probe_is_opened_all_the_same(rtsp_server, ignored: str) -> None:
    """A relay before a real server, which treats the first connection, the probe, badly."""
    server = rtsp_server()
    with relay(int(server.url().split(":")[2].split("/")[0]), ignored) as (port, requests):
        camera = Camera(config(f"rtsp://viewer:geheim@127.0.0.1:{port}/live?channel=1"), max_frames=3)
        async with asyncio.timeout(GUARD_S):
            assert len([frame async for frame in camera]) == 3
    assert camera.health()["connections"] == 1
    head = requests[0].decode()
    assert head.startswith(f"OPTIONS rtsp://127.0.0.1:{port}/live?channel=1 RTSP/1.0\r\n")
    assert "geheim" not in head


@contextmanager
def relay(target: int, first: str) -> Iterator[tuple[int, list[bytes]]]:
    """Its port, and the first request. The first connection is treated as `first` says, others are relayed."""
    requests: list[bytes] = []
    open_sockets: list[socket.socket] = []

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer = server.accept()[0]
                open_sockets.append(peer)
                if not requests:
                    requests.append(peer.recv(4096))
                    if first == "close":
                        peer.close()
                    elif first == "rubbish":
                        peer.sendall(b"\xff\x00what?")
                    continue
                onward = socket.create_connection(("127.0.0.1", target))
                open_sockets.append(onward)
                for pair in ((peer, onward), (onward, peer)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], requests
        for open_socket in (server, *open_sockets):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()


async def test_a_server_that_stops_answering_while_it_is_opened_blocks_no_other_camera(rtsp_server) -> None:
    """OpenCV opens one stream at a time: meanwhile another camera is read with PyAV."""
    with answering(options_only) as port:
        silent = Camera(config(f"rtsp://127.0.0.1:{port}/live", open_timeout=60))
        opening = asyncio.ensure_future(until(silent, aiter(silent), bool))
        await becomes(_OPENING.locked)
        camera = Camera(config(rtsp_server().url()), max_frames=3)
        async with asyncio.timeout(GUARD_S):
            assert len([frame async for frame in camera]) == 3
        assert silent.health() | {"missed": 0} == ENDED_WITHOUT_FAULT | {"state": "connecting"}
        await stopped(opening)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_the_right_password_opens_the_stream(rtsp_server, backend: str) -> None:
    server = rtsp_server("--password", "geheim")
    camera = Camera(config(server.url("viewer:geheim"), backend=backend), max_frames=3)
    async with asyncio.timeout(GUARD_S):
        frames = [frame async for frame in camera]
    assert [frame.seq for frame in frames] == [0, 1, 2]
    assert "geheim" not in camera.source


async def test_pyav_follows_a_change_of_the_picture_size(rtsp_server) -> None:
    server = rtsp_server("--grow-after", "1")
    camera = Camera(config(server.url(), backend="pyav", roi=(0, 0, 0.5, 1)))
    async with aclosing(aiter(camera)) as frames:
        small = await anext(frames)
        large = await until(camera, frames, lambda frame: frame.pixels.shape[0] == 240)
    assert small.pixels.shape == (120, 80, 3)
    assert large.pixels.shape == (240, 160, 3)
    assert camera.health()["connections"] == 1


async def test_opencv_keeps_the_first_size(rtsp_server) -> None:
    """30 frames of a live stream of 20 frames/s span 1.5 s: most of them come after the change."""
    server = rtsp_server("--grow-after", "0.5")
    camera = Camera(config(server.url()), max_frames=30)
    async with asyncio.timeout(GUARD_S):
        shapes = [frame.pixels.shape async for frame in camera]
    assert len(shapes) == 30
    assert len(set(shapes)) == 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_the_decoder_delays_no_picture(tmp_path: Path, backend: str) -> None:
    """All pictures arrive but the last two: a picture ends where the next begins. Each thread would delay one more."""
    clip = write_video(tmp_path / "clip.ts", 30).read_bytes()
    with answering(lambda request: b"HTTP/1.0 200 OK\r\n\r\n" + clip) as port:
        address = f"http://127.0.0.1:{port}/live.ts"
        connection = connect(config(address, backend=backend, read_timeout=60))
        async with asyncio.timeout(GUARD_S):
            await asyncio.to_thread(lambda: [connection.grab() for _ in range(28)])
        connection.close()


async def test_opencv_prints_nothing(rtsp_server, capfd) -> None:
    camera = Camera(config(rtsp_server().url("u:geheim", "/nowhere")))
    task = asyncio.ensure_future(until(camera, aiter(camera), bool))
    await becomes(lambda: camera.health()["fault"] == "not found")
    await stopped(task)
    assert capfd.readouterr() == ("", "")


class StepClock:
    """A monotonic clock that advances only when it is told to; for several threads."""

    def __init__(self) -> None:
        self._now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self._now_ns

    def advance(self, seconds: float) -> None:
        self._now_ns += round(1e9 * seconds)


class ScriptedConnection:
    """A connection that delivers numbered pictures without end; `script` runs before each and may block or raise."""

    finite = False
    skipped = 0

    def __init__(self, script: Callable[[int], None] = lambda number: None, first: int = 0) -> None:
        """`first`: number of the first picture."""
        self._script = script
        self._number = first - 1
        self.delivered = threading.Condition()
        self.closed = False

    def grab(self) -> Grabbed:
        time.sleep(0.002)  # a pace at which other threads get their turn
        with self.delivered:
            self.delivered.notify_all()
        self._script(self._number + 1)
        self._number += 1
        return Grabbed(self._number / 100)

    def picture(self) -> np.ndarray:
        return np.full((4, 4, 3), (*divmod(self._number, 256), 0), np.uint8)

    def wait_for(self, number: int) -> None:
        """Blocks until the picture of this number, or a later one, is with the camera."""
        with self.delivered:
            assert self.delivered.wait_for(lambda: self._number > number, GUARD_S)

    @staticmethod
    def number_of(frame: Frame) -> int:
        high, low, _ = frame.pixels[0, 0].tolist()
        return 256 * high + low

    def close(self) -> None:
        self.closed = True


async def test_pictures_of_an_abandoned_thread_are_ignored() -> None:
    released, opened = threading.Event(), []

    def hang(number: int) -> None:
        if number == 3:
            released.wait()

    def opener(_: CameraConfig) -> ScriptedConnection:
        opened.append(ScriptedConnection(first=100) if opened else ScriptedConnection(hang))
        return opened[-1]

    camera = Camera(config("rtsp://host/x", stall_after=0.1, read_timeout=0.3), opener=opener)
    numbers: list[int] = []
    async with aclosing(aiter(camera)) as frames, asyncio.timeout(GUARD_S):
        while len(numbers) < 20:
            numbers.append(ScriptedConnection.number_of(await anext(frames)))
            if len(opened) == 2:
                released.set()
        await becomes(lambda: opened[0].closed)
        numbers.append(ScriptedConnection.number_of(await anext(frames)))
    assert numbers == sorted(numbers)
    assert not [number for number in numbers if 3 <= number < 100]
    assert numbers[-1] > 100
    await becomes(lambda: all(connection.closed for connection in opened) and not reader_threads())


async def test_a_thread_that_hangs_while_opening_does_not_delay_the_end() -> None:
    released = threading.Event()

    def opener(_: CameraConfig) -> ScriptedConnection:
        released.wait()
        return ScriptedConnection()

    camera = Camera(config("rtsp://host/x"), duration_s=0.1, opener=opener)
    async with asyncio.timeout(GUARD_S):
        assert [frame async for frame in camera] == []
    assert reader_threads() == 1  # it still hangs
    assert camera.health()["state"] == "ended"
    released.set()
    await becomes(lambda: not reader_threads())


async def test_threads_that_never_return_do_not_pile_up() -> None:
    released, opened = threading.Event(), []

    def opener(_: CameraConfig) -> ScriptedConnection:
        opened.append(1)
        released.wait()
        return ScriptedConnection()

    waits = ("open_timeout", "read_timeout", "stall_after", "first_wait", "max_wait", "native_grace")
    short = CameraTimeouts(**dict.fromkeys(waits, 0.01))
    camera = Camera(config("rtsp://host/x"), opener=opener, timeouts=short)
    task = asyncio.ensure_future(until(camera, aiter(camera), bool))
    await becomes(lambda: camera.health()["connections"] >= 12)
    assert len(opened) == 4
    released.set()
    await task
    assert camera.health()["recoveries"] == 1


async def test_frames_that_the_sampling_leaves_out_prevent_a_stall() -> None:
    """A picture each 50 ms of the camera's clock, a frame each 500 ms, and a stall after 100 ms without a picture."""
    clock = StepClock()
    settings = config("rtsp://host/x", fps=2, stall_after=0.1, read_timeout=0.2)

    def opener(_: CameraConfig) -> ScriptedConnection:
        return ScriptedConnection(lambda number: clock.advance(0.05))

    camera = Camera(settings, max_frames=3, opener=opener, clock_ns=clock)
    async with asyncio.timeout(GUARD_S):
        frames = [frame async for frame in camera]
    assert np.diff([frame.capture_ns for frame in frames]).tolist() == [500_000_000] * 2
    assert camera.health()["connections"] == 1


async def test_a_slow_taker_gets_the_newest_picture() -> None:
    connection = ScriptedConnection()
    camera = Camera(config("rtsp://host/x"), opener=lambda _: connection)
    number = 0
    async with aclosing(aiter(camera)) as frames:
        for _ in range(5):
            newest = number + 20
            if number:
                connection.wait_for(newest)  # blocks the event loop, as a busy graph does
            number = ScriptedConnection.number_of(await anext(frames))
            assert number >= newest or newest == 20
    assert camera.health()["missed"] > 20


async def test_an_unexpected_error_of_a_library_does_not_end_the_camera(caplog) -> None:
    opened: list[ScriptedConnection] = []

    def fail(number: int) -> None:
        if number == 2:
            raise MemoryError("odd")

    def opener(_: CameraConfig) -> ScriptedConnection:
        opened.append(ScriptedConnection() if opened else ScriptedConnection(fail))
        return opened[-1]

    camera = Camera(config("rtsp://user:geheim@host/x?token=geheim"), max_frames=6, opener=opener)
    async with asyncio.timeout(GUARD_S):
        assert len([frame async for frame in camera]) == 6
    assert "MemoryError" in caplog.text
    assert "geheim" not in caplog.text
    assert opened[0].closed


async def test_a_finite_stream_ends_the_camera_and_a_closed_connection_does_not() -> None:
    def stop(number: int) -> None:
        if number == 4:
            raise CameraFault(FaultKind.END_OF_FILE)

    class FiniteConnection(ScriptedConnection):
        finite = True

    film = Camera(config("http://host/film.mp4"), opener=lambda _: FiniteConnection(stop))
    async with asyncio.timeout(GUARD_S):
        frames = [frame async for frame in film]
    assert len(frames) + film.health()["missed"] == 4  # on a busy machine a newer picture may replace one
    assert film.health() | {"missed": 0} == ENDED_WITHOUT_FAULT
    camera = Camera(config("http://host/live.mjpg"), max_frames=10, opener=lambda _: ScriptedConnection(stop))
    async with asyncio.timeout(GUARD_S):
        assert len([frame async for frame in camera]) == 10
    assert camera.health()["recoveries"] >= 2


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_mjpeg_stream_over_http(mjpeg_url: str, backend: str) -> None:
    """A real server on loopback that closes after 30 pictures: the camera connects again and goes on."""
    camera = Camera(config(mjpeg_url, backend=backend))
    async with aclosing(aiter(camera)) as frames:
        first = await until(camera, frames, bool)
        await until(camera, frames, lambda _: camera.health()["recoveries"] >= 1)
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
async def test_a_finite_video_behind_a_url_plays_once_at_its_pace(
    tmp_path: Path, http_folder: str, backend: str
) -> None:
    write_video(tmp_path / "clip.mp4", 15, fps=20)
    camera = Camera(config(f"{http_folder}/clip.mp4", backend=backend))
    async with asyncio.timeout(GUARD_S):
        frames = [frame async for frame in camera]
    assert camera.health() | {"missed": 0} == ENDED_WITHOUT_FAULT
    assert len(frames) + camera.health()["missed"] == 15
    assert frames[-1].stream_s > 0.6  # at least the time between the first and the last picture
    steps = np.diff([frame.pts_s for frame in frames]) * 20
    assert np.allclose(steps, np.round(steps), atol=1e-2)
    assert (steps > 0.9).all()


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_page_behind_a_url_is_a_codec_fault(tmp_path: Path, http_folder: str, backend: str) -> None:
    (tmp_path / "page.html").write_text("<p>no video</p>" * 500)
    camera = Camera(config(f"{http_folder}/page.html", backend=backend))
    task = asyncio.ensure_future(until(camera, aiter(camera), bool))
    await becomes(lambda: camera.health()["fault"] is not None)
    await stopped(task)
    assert camera.health()["fault"] == "codec"


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_broken_section_of_a_stream_is_skipped(tmp_path: Path, http_folder: str, backend: str) -> None:
    """One group of pictures in the middle is noise: the pictures after it arrive."""
    path = write_video(tmp_path / "clip.mp4", 40, fps=50)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for packet in packets[10:15]:
        start = data.index(packet)
        data[start : start + len(packet)] = np.random.default_rng(0).bytes(len(packet))
    path.write_bytes(data)
    camera = Camera(config(f"{http_folder}/clip.mp4", backend=backend))
    async with asyncio.timeout(GUARD_S):
        frames = [frame async for frame in camera]
    assert 30 <= len(frames) + camera.health()["missed"] < 40
    assert camera.skipped >= 2
    assert float(frames[-1].pixels.mean()) > 195


@contextmanager
def one_connection_sender(scheme: str) -> Iterator[str]:
    """FFmpeg waits for one connection, streams into it, and ends with it. Gives the address."""
    if shutil.which("ffmpeg") is None:
        skip_or_fail("ffmpeg", "no ffmpeg")
    url = f"{scheme}://127.0.0.1:{free_port()}" + "/live/stream" * (scheme == "rtmp")
    listening = [f"{url}?listen"] if scheme == "tcp" else ["-listen", "1", url]
    picture = ("-re", "-f", "lavfi", "-i", "testsrc=s=160x120:r=20", "-c:v", "libx264", "-preset", "ultrafast")
    form = ("-g", "10", "-pix_fmt", "yuv420p", "-f", "flv" if scheme == "rtmp" else "mpegts")
    sender = subprocess.Popen(["ffmpeg", "-v", "error", *picture, *form, *listening], stderr=subprocess.PIPE)
    try:
        yield url
    finally:
        sender.kill()
        sender.communicate()


@pytest.mark.parametrize(("scheme", "backend"), [("http", "opencv"), ("tcp", "pyav"), ("rtmp", "opencv")])
async def test_a_sender_that_accepts_one_connection_only(scheme: str, backend: str) -> None:
    with one_connection_sender(scheme) as url:
        async with asyncio.timeout(GUARD_S), aclosing(aiter(Camera(config(url, backend=backend)))) as frames:
            for _ in range(5):
                assert (await anext(frames)).pixels.shape == (120, 160, 3)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_camera_that_refuses_rtsp_over_tcp_is_read_over_udp(rtsp_server, backend: str) -> None:
    url = rtsp_server("--udp").url()
    async with asyncio.timeout(GUARD_S), aclosing(aiter(Camera(config(url, backend=backend)))) as frames:
        assert (await anext(frames)).pixels.shape == (120, 160, 3)
    with pytest.raises(CameraFault):
        connect(config(url, backend=backend, rtsp_transport="tcp", open_timeout=5))
