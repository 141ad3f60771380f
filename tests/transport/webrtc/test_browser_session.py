"""Browsers at a server: their turns, their limits, and what a hostile one gets, beside a camera that goes on."""

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
from tests.push import TOKEN, Browser, CameraApp, Shades, request
from tests.transport.webrtc.test_links import another_camera_goes_on, serving, until

CAMERA_INFO = CameraInfo(14, 8, "0123", 5.0)


async def shade_of(_: int, frame: av.VideoFrame) -> bytes:
    """Evidence that the link carries and no service reads."""
    return b"%d" % round(float(np.mean(frame.to_ndarray(format="rgb24"))))


def audience(most: int = 8, camera_info: CameraInfo = CAMERA_INFO) -> BrowserSettings:
    page = {"/": PlainTextResponse("the page")}
    return BrowserSettings(most, page, camera_info, shade_of, lambda reply, ms: f"{reply.decode()} after {ms >= 0}")


def video_url(at: SignallingEndpoint) -> str:
    return f"http://{at.host}:{at.port}/video"


@contextlib.asynccontextmanager
async def pushing(*browsers: CameraApp) -> AsyncIterator[None]:
    try:
        for browser in browsers:
            await browser.push()
        yield
    finally:
        for browser in browsers:
            await browser.leave()


async def of_a_browser(server: WebRtcServerLink) -> Message:
    async with asyncio.timeout(20):
        async for message in server.messages():
            if message.sender.startswith("browser"):
                return message
    raise AssertionError("the link has closed")


async def test_a_picture_goes_up_and_the_reply_comes_down_as_text(at: SignallingEndpoint) -> None:
    async with serving(at, audience=audience()) as (server, there), another_camera_goes_on(server, there):
        browser = Browser(video_url(there), 120)
        async with pushing(browser):
            assert browser.status == 201
            for number in range(3):
                message = await of_a_browser(server)
                assert abs(int(message.data) - 120) < 12
                assert server.cameras[message.sender] == CAMERA_INFO
                assert server.viewers == 1
                await server.reply(message, b"answer %d" % number)
            await until(lambda: "answer 2 after True" in browser.answers)
        await until(lambda: server.viewers == 0)
        assert [*server.cameras] == ["good/door"]
        await server.reply(message, b"nobody is there")


async def test_browsers_take_turns_and_all_together_have_one_picture_at_the_model(at: SignallingEndpoint) -> None:
    async with serving(at, audience=audience()) as (server, there):
        browsers = [Browser(video_url(there), shade) for shade in (60, 120, 180)]
        async with pushing(*browsers):
            asked: Counter[str] = Counter()
            first = await of_a_browser(server)
            await until(lambda: sum(guest.open for guest in server._guests.values()) == 3)
            with pytest.raises(TimeoutError):  # however many pictures come, none goes up before the reply
                async with asyncio.timeout(0.5):
                    await anext(server.messages())
            await server.reply(first, b"0")
            while len(asked) < 3 or min(asked.values()) < 3:
                message = await of_a_browser(server)
                asked[message.sender] += 1
                await server.reply(message, message.data)
            assert asked.total() < 60  # nobody is passed over for long


async def test_a_reply_that_never_comes_costs_a_turn_and_no_more(at: SignallingEndpoint) -> None:
    impatient = audience(camera_info=dataclasses.replace(CAMERA_INFO, deadline_s=0.2))
    async with serving(at, audience=impatient) as (server, there):
        browser = Browser(video_url(there))
        async with pushing(browser):
            late = await of_a_browser(server)
            message = await of_a_browser(server)
            await server.reply(late, b"late")
            while not browser.answers:
                await server.reply(message, b"in time")
                message = await of_a_browser(server)
        assert {*browser.answers} == {"in time after True"}


async def test_there_are_only_so_many_and_a_place_becomes_free(at: SignallingEndpoint) -> None:
    async with serving(at, audience=audience(most=1)) as (server, there), another_camera_goes_on(server, there):
        async with pushing(Browser(video_url(there))):
            other = Browser(video_url(there))
            async with pushing(other):
                assert (other.status, other.reason) == (503, "too many peers; try again later\n")
            await until(lambda: len(server.cameras) == 2)
        await until(lambda: server.viewers == 0)
        another = Browser(video_url(there))
        async with pushing(another):
            assert another.status == 201


@pytest.mark.parametrize("what", ["large", "text", "channels"])
async def test_who_does_not_keep_to_it_is_put_out(at: SignallingEndpoint, what: str) -> None:
    async with serving(at, audience=audience()) as (server, there), another_camera_goes_on(server, there):
        browser = Browser(video_url(there), size=(1600, 2560) if what == "large" else (120, 160))
        if what == "text":
            browser.channel.add_listener("open", lambda: browser.channel.send("hello"))
        if what == "channels":
            for number in range(100):
                browser._peer.createDataChannel(f"channel {number}")
        async with pushing(browser):
            assert browser.status == 201
            viewer = next(guest for guest in server._guests.values() if "good/door" not in guest.addresses)
            await until(lambda: server.viewers == 0)
        assert viewer.open is False or what != "large"  # no such picture was decoded
        faults = {"large": "pictures of 2560x1600", "text": "the peer sent data", "channels": "a channel of its own"}
        assert faults[what] in viewer._peer.fault


@pytest.mark.parametrize("what", ["never connects", "falls silent"])
async def test_who_sends_no_picture_is_forgotten(
    at: SignallingEndpoint,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(at, audience=audience()) as (server, there), another_camera_goes_on(server, there):
        browser = Browser(video_url(there))
        if what == "never connects":
            monkeypatch.setattr(video_peer, "_FIRST_S", 0.3)
            await browser._peer.setLocalDescription(await browser._peer.createOffer())
            offer = browser._peer.localDescription.sdp.encode()
            assert (await request(video_url(there), "POST", offer))[0] == 201
        else:
            await browser.push()
            (viewer,) = [guest for guest in server._guests.values() if guest.camera_info is CAMERA_INFO]
            await until(lambda: viewer.open)
            viewer._peer._terms = dataclasses.replace(viewer._peer._terms, max_silence_s=0.3)
            browser._peer.getTransceivers()[0].sender.replaceTrack(None)
        await until(lambda: server.viewers == 0)
        await browser.leave()


async def test_nothing_grows_however_many_come_and_go(at: SignallingEndpoint) -> None:
    async with serving(at, audience=audience()) as (server, there):
        held = []
        for _ in range(4):
            async with pushing(Browser(video_url(there)), Browser(video_url(there))):
                await until(lambda: len(server.cameras) == 2)
            await until(lambda: server.viewers == 0)
            held.append(psutil.Process().num_fds())
        assert held[-1] <= held[0]
        assert not [thread.name for thread in threading.enumerate() if "decoder" in thread.name]
        assert not server.cameras
        assert not server._stays


@pytest.mark.parametrize("offer", [b"", b"rubbish", b"\xff\xfe", b"v=0\r\nm=video 9\r\nm=application 9\r\n"])
async def test_what_is_no_offer_is_refused(at: SignallingEndpoint, offer: bytes) -> None:
    async with serving(at, audience=audience()) as (server, there), another_camera_goes_on(server, there):
        assert (await request(video_url(there), "POST", offer))[0] == 400
        assert (await request(video_url(there), "POST", b"v" * 65_537))[0] == 413
        assert server.viewers == 0


@pytest.mark.parametrize("what", ["no channel", "no video", "H264"])
async def test_an_offer_without_what_is_needed_is_refused(at: SignallingEndpoint, what: str) -> None:
    async with serving(at, audience=audience()) as (server, there):
        if what == "no video":
            peer = RTCPeerConnection()
            peer.createDataChannel("answers")
            await peer.setLocalDescription(await peer.createOffer())
            status, reason, _ = await request(video_url(there), "POST", peer.localDescription.sdp.encode())
            await peer.close()
        else:
            url = video_url(there)
            browser = CameraApp(url) if what == "no channel" else Browser(url, codec="H264")
            async with pushing(browser):
                status, reason = browser.status, browser.reason
        assert status == 400
        assert {"no channel": "data channel", "no video": "sends no video", "H264": "video"}[what] in reason
        assert server.viewers == 0


async def test_sound_and_further_tracks_are_declined(at: SignallingEndpoint) -> None:
    async with serving(at, audience=audience()) as (server, there):
        browser = Browser(video_url(there), 120)
        browser._peer.addTransceiver("audio", "sendonly")
        for _ in range(3):
            browser._peer.addTransceiver(Shades(10), "sendonly")
        async with pushing(browser):
            assert browser.reason.count("a=inactive") == 4
            for _ in range(3):
                message = await of_a_browser(server)
                assert abs(int(message.data) - 120) < 12
                await server.reply(message, b"")


async def test_the_page_needs_no_token_and_an_offer_does(at: SignallingEndpoint) -> None:
    async with serving(dataclasses.replace(at, token=TOKEN), audience=audience()) as (_, there):
        page = video_url(there).replace("video", "")
        assert (await request(page, "GET"))[:2] == (200, "the page")
        for token, status in ((None, 401), ("another-token-of-this-length", 401), (TOKEN, 201)):
            browser = Browser(video_url(there), token=token)
            async with pushing(browser):
                assert browser.status == status


async def test_without_an_audience_there_is_no_page(at: SignallingEndpoint) -> None:
    async with serving(at) as (_, there):
        assert (await request(video_url(there).replace("video", ""), "GET"))[0] == 404
        assert (await request(video_url(there), "POST", b""))[0] == 404
