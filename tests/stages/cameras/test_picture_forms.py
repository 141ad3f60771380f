"""Cameras and videos behind URLs give the same pictures as files, whichever library reads them."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.types import Pixels
from sagelink.stages.cameras.camera import Camera
from sagelink.stages.cameras.stream_header import convertible
from sagelink.stages.cameras.with_opencv import OpencvConnection
from tests.stages.picture_forms import SIZE, seen, with_colour_matrix, with_display_matrix, write_quarters
from tests.stages.test_decoded_picture import SEEN
from tests.stages.test_orientation import MATRICES

BACKENDS = ("opencv", "pyav")
GUARD_S = 60


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_folder(folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def live(path: Path) -> Iterator[str]:
    """The address of a server that sends the bytes of a file to each peer, and then keeps the connection."""
    peers: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peers.append(server.accept()[0])
                peers[-1].sendall(path.read_bytes() * 3)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        for opened in (server, *peers):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()


async def first_picture(address: str, backend: str) -> Pixels:
    """Fails when the camera has to connect more than once."""
    camera = Camera(CameraConfig(name="gate", source=address, backend=backend, read_timeout=30), max_frames=1)
    async with asyncio.timeout(GUARD_S):
        (frame,) = [frame async for frame in camera]
    assert camera.health()["connections"] == 1
    return frame.pixels


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("linear", "orientation"), MATRICES.items())
async def test_a_mirrored_video_by_http(
    tmp_path: Path, backend: str, linear: tuple[int, int, int, int], orientation: int
) -> None:
    with_display_matrix(write_quarters(tmp_path / "a.mp4"), linear)
    with http_folder(tmp_path) as url:
        assert seen(await first_picture(f"{url}/a.mp4", backend)) == SEEN[orientation]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [8, 14])
async def test_a_rare_colour_matrix_by_http(tmp_path: Path, backend: str, number: int) -> None:
    with_colour_matrix(write_quarters(tmp_path / "a.mp4"), number, tmp_path / "b.mp4")
    with http_folder(tmp_path) as url:
        assert seen(await first_picture(f"{url}/b.mp4", backend)) == "RGBW"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [2, 14])
async def test_a_rare_colour_matrix_of_a_live_stream(tmp_path: Path, backend: str, number: int, caplog) -> None:
    path = with_colour_matrix(write_quarters(tmp_path / "a.ts", frames=60, g="10"), number, tmp_path / "b.ts")
    with live(path) as url:
        assert seen(await first_picture(url, backend)) == "RGBW"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(16, 11), (140, 64)), (Fraction(1, 2), (48, 64)), (Fraction(20), SIZE)]
)
async def test_the_pixel_aspect_of_a_live_stream(
    tmp_path: Path, backend: str, aspect: Fraction, size: tuple[int, int]
) -> None:
    with live(write_quarters(tmp_path / "a.ts", frames=60, aspect=aspect, g="10")) as url:
        picture = await first_picture(url, backend)
    assert picture.shape[1::-1] == size
    assert seen(picture) == "RGBW"


def test_opencv_reads_live_streams_that_it_shows_rightly(tmp_path: Path) -> None:
    """The check of the header must not send every camera to PyAV."""
    with live(write_quarters(tmp_path / "a.ts", frames=60, g="10")) as url:
        connection = OpencvConnection(CameraConfig(name="gate", source=url))
        connection.grab()
        assert seen(connection.picture()) == "RGBW"
        connection.close()


@pytest.mark.parametrize("codec", ["h264", "hevc", "mjpeg", "????"])
@pytest.mark.parametrize("header", [b"", b"\x00", b"\x01", b"\x01" * 64, b"\x00\x00\x01\x67", bytes(range(256))])
def test_a_damaged_header_says_nothing(codec: str, header: bytes) -> None:
    assert convertible(codec, header)
