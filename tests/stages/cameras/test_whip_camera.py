"""`webrtc:`: peers that push, leave and come back, and those that are not let in."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from aiortc import RTCPeerConnection

from sagelink.pipeline.config import CameraConfig, CaptureConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Frame
from sagelink.stages.cameras.camera import Camera
from sagelink.stages.cameras.supervisor import CameraState
from sagelink.stages.cameras.whip_camera import ENV_TOKEN, WhipEndpoint
from sagelink.stages.capture import close_captures, open_captures
from tests.push import TOKEN, CameraApp, request

HERE = "webrtc:127.0.0.1:0"


def config(source: str = HERE, **options: object) -> CameraConfig:
    return CameraConfig(name="gate", source=source, **{"open_timeout": 20, **options})


class Run:
    """A camera, read to the end of the body."""

    def __init__(self, config: CameraConfig) -> None:
        self.door = WhipEndpoint(config)
        self.camera = Camera(config, None, None, self.door.connect, self.door.close)
        self.frames: list[Frame] = []

    async def __aenter__(self) -> Run:
        self._task = asyncio.create_task(self._read())
        await self.becomes(lambda: self.door._thread is not None)
        async with asyncio.timeout(20):
            while (await self._knock()) != 405:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return self

    async def _knock(self) -> int:
        try:
            return (await request(self.door.url, "GET", token=TOKEN))[0]
        except OSError:
            return 0

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        assert not self.door._thread.is_alive()

    async def _read(self) -> None:
        async with aclosing(aiter(self.camera)) as frames:
            async for frame in frames:
                self.frames.append(frame)

    async def becomes(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(40):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def shows(self, shade: int) -> bool:
        return bool(self.frames) and abs(float(self.frames[-1].pixels.mean()) - shade) < 12


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    async with Run(config()) as run:
        yield run


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_frames_of_a_peer(run: Run, codec: str) -> None:
    app = await CameraApp(run.door.url, 200, codec).push()
    assert app.status == 201
    await run.becomes(lambda: len(run.frames) > 3 and run.shows(200))
    assert run.frames[-1].pixels.shape == (120, 160, 3)
    assert [frame.seq for frame in run.frames] == [*range(len(run.frames))]
    await app.leave()


async def test_a_peer_leaves_and_comes_back_and_there_is_one_at_a_time(run: Run) -> None:
    app = await CameraApp(run.door.url, 200).push()
    await run.becomes(lambda: run.shows(200))
    other = await CameraApp(run.door.url).push()
    assert (other.status, other.reason) == (409, "another peer is sending here; it has to leave first\n")
    await other.leave()
    await app.leave()
    await run.becomes(lambda: run.camera.state is not CameraState.RUNNING)
    assert run.camera.health()["fault"] == "end of file"
    app = await CameraApp(run.door.url, 60).push()
    await run.becomes(lambda: run.shows(60))
    assert run.camera.state is CameraState.RUNNING
    await app.leave()


async def test_delete_ends_the_session(run: Run) -> None:
    app = await CameraApp(run.door.url).push()
    await run.becomes(lambda: run.shows(200))
    address = run.door.url.removesuffix("/whip")
    assert (await request(f"{address}/whip/another", "DELETE"))[0] == 404
    assert (await request(address + app.location, "DELETE"))[0] == 200
    await run.becomes(lambda: run.camera.state is not CameraState.RUNNING)
    assert (await request(address + app.location, "DELETE"))[0] == 404
    await app.leave()


@pytest.mark.parametrize("offer", [b"", b"rubbish", b"\xff\xfe", b"v=0\r\nm=video 9\r\n", b"v=0\r\n" + b"m=x\r\n" * 99])
async def test_what_is_no_offer_of_video_is_refused_and_the_next_peer_served(run: Run, offer: bytes) -> None:
    assert (await request(run.door.url, "POST", offer))[0] == 400
    app = await CameraApp(run.door.url).push()
    await run.becomes(lambda: run.shows(200))
    await app.leave()


async def test_an_offer_that_is_too_long_or_no_sdp(run: Run) -> None:
    assert (await request(run.door.url, "POST", b"v" * 65_537))[0] == 413
    assert (await request(run.door.url, "POST", b"v=0", kind="text/plain"))[0] == 415


@pytest.mark.parametrize("what", ["audio", "data"])
async def test_a_peer_without_video_is_refused(run: Run, what: str) -> None:
    peer = RTCPeerConnection()
    if what == "audio":
        peer.addTransceiver("audio", "sendonly")
    else:
        peer.createDataChannel("x")
    await peer.setLocalDescription(await peer.createOffer())
    status, reason, _ = await request(run.door.url, "POST", peer.localDescription.sdp.encode())
    assert status == 400
    assert ("no video" if what == "audio" else "data channels are not accepted") in reason
    await peer.close()


async def test_a_peer_that_never_connects_is_forgotten(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagelink.net.video_peer._FIRST_S", 0.3)
    silent = CameraApp(run.door.url)
    await silent._peer.setLocalDescription(await silent._peer.createOffer())
    status, *_ = await request(run.door.url, "POST", silent._peer.localDescription.sdp.encode())
    assert status == 201
    await run.becomes(lambda: run.door._visit is None)
    await silent.leave()


async def test_the_token_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_TOKEN, TOKEN)
    async with Run(config()) as run:
        app = await CameraApp(run.door.url, token="another-token-of-this-length").push()  # noqa: S106
        assert app.status == 401
        await app.leave()
        app = await CameraApp(run.door.url, token=TOKEN).push()
        await run.becomes(lambda: run.shows(200))
        await app.leave()


@pytest.mark.parametrize("source", ["webrtc:0.0.0.0:0", "webrtc:192.0.2.7:8630"])
def test_others_are_not_let_in_without_a_token(source: str) -> None:
    with pytest.raises(UsageError, match=f"can be reached by others.*{ENV_TOKEN}"):
        WhipEndpoint(config(source))


@pytest.mark.parametrize("source", ["webrtc:8630", "webrtc:host:port", "webrtc://host:1", "webrtc:h:70000"])
def test_addresses_that_are_none(source: str) -> None:
    with pytest.raises(UsageError, match="accepted"):
        open_captures([config(source)], CaptureConfig())


def test_two_cameras_do_not_share_a_port() -> None:
    door = WhipEndpoint(config())
    with pytest.raises(UsageError, match="cannot listen"):
        WhipEndpoint(config(f"webrtc:127.0.0.1:{door.port}"))
    door.close()


def test_a_camera_that_never_runs_lets_go_of_its_port() -> None:
    captures = open_captures([config()], CaptureConfig())
    close_captures(captures)


def test_a_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("short")
    with pytest.raises(UsageError, match="5 characters"):
        WhipEndpoint(config(token_file=path))


def test_aiortc_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "aiortc" else found(name))
    with pytest.raises(UsageError, match=r"webrtc:.*aiortc, which is not installed; pip install 'sagelink\[webrtc\]'"):
        WhipEndpoint(config("webrtc:"))
