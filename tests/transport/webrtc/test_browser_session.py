"""Browser sessions at a server: turns, limits and hostile browsers, beside a camera that is not affected."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import AsyncIterator

import av
import numpy as np
import psutil
import pytest
from aiortc import RTCPeerConnection
from starlette.responses import PlainTextResponse

from sagelink.net import video_peer
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.webrtc.address import SignallingEndpoint
from sagelink.transport.webrtc.browser_session import BrowserSettings
from sagelink.transport.webrtc.server import WebRtcServerLink
from tests.patience import PATIENCE_S
from tests.push import TOKEN, Browser, CameraApp, Shades, request
from tests.transport.webrtc.test_links import another_camera_unaffected, serving, until

CAMERA_INFO = CameraInfo(14, 8, "0123", 5.0)


async def shade_of(_: int, frame: av.VideoFrame) -> bytes:
    """Evidence that the link carries and no service reads."""
    return b"%d" % round(float(np.mean(frame.to_ndarray(format="rgb24"))))


def browser_settings(max_browsers: int = 8, camera_info: CameraInfo = CAMERA_INFO) -> BrowserSettings:
    page = {"/": PlainTextResponse("the page")}
    return BrowserSettings(
        max_browsers, page, camera_info, shade_of, lambda reply, ms: f"{reply.decode()} after {ms >= 0}"
    )


def video_url(endpoint: SignallingEndpoint) -> str:
    return f"http://{endpoint.host}:{endpoint.port}/video"


@contextlib.asynccontextmanager
async def connected(*browsers: CameraApp) -> AsyncIterator[None]:
    try:
        for browser in browsers:
            await browser.push()
        yield
    finally:
        for browser in browsers:
            await browser.leave()


async def next_browser_message(server: WebRtcServerLink) -> Message:
    async with asyncio.timeout(PATIENCE_S):
        async for message in server.messages():
            if message.sender.startswith("browser"):
                return message
    raise AssertionError("the link has closed")


async def test_a_picture_is_answered_with_text(endpoint: SignallingEndpoint) -> None:
    async with (
        serving(endpoint, browsers=browser_settings()) as (server, address),
        another_camera_unaffected(server, address),
    ):
        browser = Browser(video_url(address), 120)
        async with connected(browser):
            assert browser.status == 201
            for number in range(3):
                message = await next_browser_message(server)
                assert abs(int(message.data) - 120) < 12
                assert server.cameras[message.sender] == CAMERA_INFO
                assert server.viewers == 1
                await server.reply(message, b"answer %d" % number)
            await until(lambda: "answer 2 after True" in browser.answers)
        await until(lambda: server.viewers == 0)
        assert [*server.cameras] == ["good/door"]
        await server.reply(message, b"nobody is there")


async def test_browsers_take_turns_with_one_picture_at_the_model(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint, browsers=browser_settings()) as (server, address):
        browsers = [Browser(video_url(address), shade) for shade in (60, 120, 180)]
        async with connected(*browsers):
            asked: Counter[str] = Counter()
            first = await next_browser_message(server)
            await until(lambda: sum(session.open for session in server._sessions.values()) == 3)
            with pytest.raises(TimeoutError):  # no further picture is sent to the model before the reply
                async with asyncio.timeout(0.5):
                    await anext(server.messages())
            await server.reply(first, b"0")
            while len(asked) < 3 or min(asked.values()) < 3:
                message = await next_browser_message(server)
                asked[message.sender] += 1
                await server.reply(message, message.data)
            assert asked.total() < 60  # no browser waits for many turns


async def test_a_missing_reply_costs_one_turn(endpoint: SignallingEndpoint) -> None:
    impatient = browser_settings(camera_info=dataclasses.replace(CAMERA_INFO, deadline_s=0.2))
    async with serving(endpoint, browsers=impatient) as (server, address):
        browser = Browser(video_url(address))
        async with connected(browser):
            late = await next_browser_message(server)
            message = await next_browser_message(server)
            await server.reply(late, b"late")
            while not browser.answers:
                await server.reply(message, b"in time")
                message = await next_browser_message(server)
        assert {*browser.answers} == {"in time after True"}


async def test_the_number_of_browsers_is_limited_and_a_place_becomes_free(endpoint: SignallingEndpoint) -> None:
    async with (
        serving(endpoint, browsers=browser_settings(max_browsers=1)) as (server, address),
        another_camera_unaffected(server, address),
    ):
        async with connected(Browser(video_url(address))):
            other = Browser(video_url(address))
            async with connected(other):
                assert (other.status, other.reason) == (503, "too many peers; try again later\n")
            await until(lambda: len(server.cameras) == 2)
        await until(lambda: server.viewers == 0)
        another = Browser(video_url(address))
        async with connected(another):
            assert another.status == 201


@pytest.mark.parametrize("case", ["large", "text", "channels"])
async def test_a_misbehaving_browser_is_disconnected(endpoint: SignallingEndpoint, case: str) -> None:
    async with (
        serving(endpoint, browsers=browser_settings()) as (server, address),
        another_camera_unaffected(server, address),
    ):
        browser = Browser(video_url(address), size=(1600, 2560) if case == "large" else (120, 160))
        if case == "text":
            browser.channel.add_listener("open", lambda: browser.channel.send("hello"))
        if case == "channels":
            for number in range(100):
                browser._peer.createDataChannel(f"channel {number}")
        async with connected(browser):
            assert browser.status == 201
            session = next(session for session in server._sessions.values() if "good/door" not in session.addresses)
            await until(lambda: server.viewers == 0)
        assert session.open is False or case != "large"  # no such picture was decoded
        faults = {"large": "pictures of 2560x1600", "text": "the peer sent data", "channels": "a channel of its own"}
        assert faults[case] in session._peer.fault


@pytest.mark.parametrize("case", ["never connects", "falls silent"])
async def test_a_browser_without_pictures_is_removed(
    endpoint: SignallingEndpoint,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        serving(endpoint, browsers=browser_settings()) as (server, address),
        another_camera_unaffected(server, address),
    ):
        browser = Browser(video_url(address))
        if case == "never connects":
            monkeypatch.setattr(video_peer, "_FIRST_S", 0.3)
            await browser._peer.setLocalDescription(await browser._peer.createOffer())
            offer = browser._peer.localDescription.sdp.encode()
            assert (await request(video_url(address), "POST", offer))[0] == 201
        else:
            await browser.push()
            (session,) = [
                session for session in server._sessions.values() if CAMERA_INFO in session.camera_infos.values()
            ]
            await until(lambda: session.open)
            session._peer._terms = dataclasses.replace(session._peer._terms, max_silence_s=0.3)
            browser._peer.getTransceivers()[0].sender.replaceTrack(None)
        await until(lambda: server.viewers == 0)
        await browser.leave()


async def test_sessions_leave_no_resources_behind(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint, browsers=browser_settings()) as (server, address):
        held = []
        for _ in range(4):
            async with connected(Browser(video_url(address)), Browser(video_url(address))):
                await until(lambda: len(server.cameras) == 2)
            await until(lambda: server.viewers == 0)
            held.append(psutil.Process().num_fds())
        assert held[-1] <= held[0]
        assert not [thread.name for thread in threading.enumerate() if "decoder" in thread.name]
        assert not server.cameras
        assert not server._tasks


@pytest.mark.parametrize("offer", [b"", b"rubbish", b"\xff\xfe", b"v=0\r\nm=video 9\r\nm=application 9\r\n"])
async def test_a_malformed_offer_is_refused(endpoint: SignallingEndpoint, offer: bytes) -> None:
    async with (
        serving(endpoint, browsers=browser_settings()) as (server, address),
        another_camera_unaffected(server, address),
    ):
        assert (await request(video_url(address), "POST", offer))[0] == 400
        assert (await request(video_url(address), "POST", b"v" * 65_537))[0] == 413
        assert server.viewers == 0


@pytest.mark.parametrize("case", ["no channel", "no video", "H264"])
async def test_an_incomplete_offer_is_refused(endpoint: SignallingEndpoint, case: str) -> None:
    async with serving(endpoint, browsers=browser_settings()) as (server, address):
        if case == "no video":
            peer = RTCPeerConnection()
            peer.createDataChannel("answers")
            await peer.setLocalDescription(await peer.createOffer())
            status, reason, _ = await request(video_url(address), "POST", peer.localDescription.sdp.encode())
            await peer.close()
        else:
            url = video_url(address)
            browser = CameraApp(url) if case == "no channel" else Browser(url, codec="H264")
            async with connected(browser):
                status, reason = browser.status, browser.reason
        assert status == 400
        assert {"no channel": "data channel", "no video": "sends no video", "H264": "video"}[case] in reason
        assert server.viewers == 0


async def test_audio_and_further_tracks_are_declined(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint, browsers=browser_settings()) as (server, address):
        browser = Browser(video_url(address), 120)
        browser._peer.addTransceiver("audio", "sendonly")
        for _ in range(3):
            browser._peer.addTransceiver(Shades(10), "sendonly")
        async with connected(browser):
            assert browser.reason.count("a=inactive") == 4
            for _ in range(3):
                message = await next_browser_message(server)
                assert abs(int(message.data) - 120) < 12
                await server.reply(message, b"")


async def test_the_page_needs_no_token_but_an_offer_does(endpoint: SignallingEndpoint) -> None:
    async with serving(dataclasses.replace(endpoint, token=TOKEN), browsers=browser_settings()) as (_, address):
        page = video_url(address).replace("video", "")
        assert (await request(page, "GET"))[:2] == (200, "the page")
        for token, status in ((None, 401), ("another-token-of-this-length", 401), (TOKEN, 201)):
            browser = Browser(video_url(address), token=token)
            async with connected(browser):
                assert browser.status == status


async def test_without_browser_settings_there_is_no_page(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (_, address):
        assert (await request(video_url(address).replace("video", ""), "GET"))[0] == 404
        assert (await request(video_url(address), "POST", b""))[0] == 404
