"""The WHIP camera: peers that push, leave and return, and peers that are refused."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from aiortc import RTCPeerConnection

from sagelink.pipeline.config.camera import CameraConfig, CaptureConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Frame
from sagelink.stages.cameras.camera import Camera
from sagelink.stages.cameras.supervisor import CameraState
from sagelink.stages.cameras.whip_camera import ENV_TOKEN, WhipEndpoint
from sagelink.stages.capture import close_captures, open_captures
from tests.patience import PATIENCE_S
from tests.push import TOKEN, CameraApp, request

HERE = "webrtc:127.0.0.1:0"


def config(source: str = HERE, **options: object) -> CameraConfig:
    return CameraConfig(name="gate", source=source, **{"open_timeout": 20, **options})


class RunningCamera:
    """A WHIP camera whose frames are read while the body runs."""

    def __init__(self, config: CameraConfig) -> None:
        self.endpoint = WhipEndpoint(config)
        self.camera = Camera(config, None, None, self.endpoint.connect, self.endpoint.close)
        self.frames: list[Frame] = []

    async def __aenter__(self) -> RunningCamera:
        self._task = asyncio.create_task(self._read())
        await self.becomes(lambda: self.endpoint.running)
        async with asyncio.timeout(PATIENCE_S):
            while (await self._status()) != 405:  # noqa: ASYNC110 (the server signals nothing when it listens)
                await asyncio.sleep(0.02)
        return self

    async def _status(self) -> int:
        try:
            return (await request(self.endpoint.url, "GET", token=TOKEN))[0]
        except OSError:
            return 0

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        assert not self.endpoint.running

    async def _read(self) -> None:
        async with aclosing(aiter(self.camera)) as frames:
            async for frame in frames:
                self.frames.append(frame)

    async def becomes(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 (no event for every condition)
                await asyncio.sleep(0.02)

    def shows(self, shade: int) -> bool:
        return bool(self.frames) and abs(float(self.frames[-1].pixels.mean()) - shade) < 12


@pytest.fixture
async def running() -> AsyncIterator[RunningCamera]:
    async with RunningCamera(config()) as running:
        yield running


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_frames_of_a_peer(running: RunningCamera, codec: str) -> None:
    app = await CameraApp(running.endpoint.url, 200, codec).push()
    assert app.status == 201
    await running.becomes(lambda: len(running.frames) > 3 and running.shows(200))
    assert running.frames[-1].pixels.shape == (120, 160, 3)
    assert [frame.seq for frame in running.frames] == [*range(len(running.frames))]
    await app.leave()


HIDDEN = {
    "mdns": lambda sdp: re.sub(r"(a=candidate:(?:\S+ ){4})\S+", r"\g<1>0a1b2c3d-1111-2222-3333-4444.local", sdp),
    "none": lambda sdp: re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", sdp),
    "none-and-end": lambda sdp: re.sub(r"a=candidate.*\r\n", "", sdp),
}


@pytest.mark.parametrize("kind", HIDDEN)
async def test_a_peer_that_hides_its_addresses_connects(running: RunningCamera, kind: str) -> None:
    app = await CameraApp(running.endpoint.url).push(HIDDEN[kind])
    assert "a=candidate:" in app.reason  # the answer
    await running.becomes(lambda: running.shows(200))
    await app.leave()


@pytest.mark.parametrize(
    ("change", "codecs"),
    [
        (lambda sdp: sdp.replace("VP8/90000", "VP9/90000"), "VP9"),
        (lambda sdp: sdp.replace("VP8/90000", "AV1/90000"), "AV1"),
        (lambda sdp: sdp.replace("VP8/90000", "H264/90000\r\na=fmtp:97 profile-level-id=640c1f"), "H.264"),
        (lambda sdp: sdp.replace("VP8/90000", "\x1b[31mX/90000"), "no codec"),
    ],
)
async def test_a_peer_with_other_codecs_is_refused(
    running: RunningCamera, change: Callable[[str], str], codecs: str
) -> None:
    app = await CameraApp(running.endpoint.url).push(change)
    expected = f"the offer has video as {codecs}; accepted: VP8 or H.264 (baseline, packetization-mode 1)\n"
    assert (app.status, app.reason) == (400, expected)
    await app.leave()


async def test_a_peer_leaves_and_returns_and_only_one_is_accepted(running: RunningCamera) -> None:
    app = await CameraApp(running.endpoint.url, 200).push()
    await running.becomes(lambda: running.shows(200))
    other = await CameraApp(running.endpoint.url).push()
    assert (other.status, other.reason) == (409, "another peer is sending here; it has to leave first\n")
    await other.leave()
    await app.leave()
    await running.becomes(lambda: running.camera.state is not CameraState.RUNNING)
    assert running.camera.health()["fault"] == "end of file"
    app = await CameraApp(running.endpoint.url, 60).push()
    await running.becomes(lambda: running.shows(60))
    assert running.camera.state is CameraState.RUNNING
    await app.leave()


async def test_delete_ends_the_session(running: RunningCamera) -> None:
    app = await CameraApp(running.endpoint.url).push()
    await running.becomes(lambda: running.shows(200))
    address = running.endpoint.url.removesuffix("/whip")
    assert (await request(f"{address}/whip/another", "DELETE"))[0] == 404
    assert (await request(address + app.location, "DELETE"))[0] == 200
    await running.becomes(lambda: running.camera.state is not CameraState.RUNNING)
    assert (await request(address + app.location, "DELETE"))[0] == 404
    await app.leave()


@pytest.mark.parametrize("offer", [b"", b"rubbish", b"\xff\xfe", b"v=0\r\nm=video 9\r\n", b"v=0\r\n" + b"m=x\r\n" * 99])
async def test_an_invalid_offer_is_refused_and_the_next_peer_served(running: RunningCamera, offer: bytes) -> None:
    assert (await request(running.endpoint.url, "POST", offer))[0] == 400
    app = await CameraApp(running.endpoint.url).push()
    await running.becomes(lambda: running.shows(200))
    await app.leave()


async def test_an_offer_that_is_too_long_or_not_sdp_is_refused(running: RunningCamera) -> None:
    assert (await request(running.endpoint.url, "POST", b"v" * 65_537))[0] == 413
    assert (await request(running.endpoint.url, "POST", b"v=0", kind="text/plain"))[0] == 415


@pytest.mark.parametrize("what", ["audio", "data"])
async def test_a_peer_without_video_is_refused(running: RunningCamera, what: str) -> None:
    peer = RTCPeerConnection()
    if what == "audio":
        peer.addTransceiver("audio", "sendonly")
    else:
        peer.createDataChannel("x")
    await peer.setLocalDescription(await peer.createOffer())
    status, reason, _ = await request(running.endpoint.url, "POST", peer.localDescription.sdp.encode())
    assert status == 400
    assert ("no video" if what == "audio" else "data channels are not accepted") in reason
    await peer.close()


async def test_a_peer_that_never_connects_is_forgotten(running: RunningCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagelink.net.video_peer._FIRST_S", 0.3)
    silent = CameraApp(running.endpoint.url)
    await silent._peer.setLocalDescription(await silent._peer.createOffer())
    offer = silent._peer.localDescription.sdp.encode()
    assert (await request(running.endpoint.url, "POST", offer))[0] == 201
    async with asyncio.timeout(PATIENCE_S):
        while (status := (await request(running.endpoint.url, "POST", offer))[0]) == 409:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert status == 201
    await silent.leave()


async def test_a_token_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_TOKEN, TOKEN)
    async with RunningCamera(config()) as running:
        app = await CameraApp(running.endpoint.url, token="another-token-of-this-length").push()  # noqa: S106
        assert app.status == 401
        await app.leave()
        app = await CameraApp(running.endpoint.url, token=TOKEN).push()
        await running.becomes(lambda: running.shows(200))
        await app.leave()


@pytest.mark.parametrize("source", ["webrtc:0.0.0.0:0", "webrtc:192.0.2.7:8630"])
def test_a_public_address_needs_a_token(source: str) -> None:
    with pytest.raises(UsageError, match=f"can be reached by others.*{ENV_TOKEN}"):
        WhipEndpoint(config(source))


@pytest.mark.parametrize("source", ["webrtc:8630", "webrtc:host:port", "webrtc://host:1", "webrtc:h:70000"])
def test_invalid_addresses_are_refused(source: str) -> None:
    with pytest.raises(UsageError, match="accepted"):
        open_captures([config(source)], CaptureConfig())


def test_two_cameras_cannot_share_a_port() -> None:
    endpoint = WhipEndpoint(config())
    with pytest.raises(UsageError, match="cannot listen"):
        WhipEndpoint(config(f"webrtc:127.0.0.1:{endpoint.port}"))
    endpoint.close()


def test_a_camera_that_never_runs_releases_its_port() -> None:
    captures = open_captures([config()], CaptureConfig())
    close_captures(captures)


def test_a_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("short")
    with pytest.raises(UsageError, match="5 characters"):
        WhipEndpoint(config(token_file=path))


def test_aiortc_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "aiortc" else find_spec(name))
    with pytest.raises(UsageError, match=r"webrtc:.*aiortc, which is not installed; pip install 'sagelink\[webrtc\]'"):
        WhipEndpoint(config("webrtc:"))
