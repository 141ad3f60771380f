"""Peers for tests: an aiortc peer that pushes a video track to a WHIP endpoint, as a camera app or a browser does."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Self

import av
import numpy as np
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack

TOKEN = "a-token-of-some-length"  # noqa: S105


class Shades(VideoStreamTrack):
    """Pictures of one shade of grey."""

    def __init__(self, shade: int, height: int = 120, width: int = 160) -> None:
        super().__init__()
        self._pixels = np.full((height, width, 3), shade, np.uint8)

    async def recv(self) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(self._pixels, format="rgb24")
        frame.pts, frame.time_base = await self.next_timestamp()
        return frame


async def request(
    url: str, method: str, body: bytes | None = None, token: str | None = None, kind: str = "application/sdp"
) -> tuple[int, str, str]:
    """Status, body and Location."""

    def go() -> tuple[int, str, str]:
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {})
        asked = urllib.request.Request(url, body, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(asked, timeout=15) as answer:  # noqa: S310
                return answer.status, answer.read().decode(), answer.headers.get("Location", "")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), ""

    return await asyncio.to_thread(go)


class CameraApp:
    """A peer that pushes one video track; `leave` closes its connection."""

    def __init__(
        self,
        url: str,
        shade: int = 200,
        codec: str = "VP8",
        token: str | None = None,
        size: tuple[int, int] = (120, 160),
    ) -> None:
        self._url = url
        self._token = token
        self._peer = RTCPeerConnection()
        transceiver = self._peer.addTransceiver(Shades(shade, *size), "sendonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        transceiver.setCodecPreferences([known for known in codecs if known.mimeType == f"video/{codec}"])
        self.status, self.reason, self.location = 0, "", ""

    async def push(self, change: Callable[[str], str] = str) -> Self:
        """`change` changes the text of the offer."""
        await self._peer.setLocalDescription(await self._peer.createOffer())
        offer = change(self._peer.localDescription.sdp).encode()
        self.status, self.reason, self.location = await request(self._url, "POST", offer, self._token)
        if self.status == 201:
            await self._peer.setRemoteDescription(RTCSessionDescription(self.reason, "answer"))
        return self

    async def leave(self) -> None:
        await self._peer.close()


class Browser(CameraApp):
    """A peer like the camera page: sends video, and receives answers on a pre-negotiated data channel."""

    def __init__(self, url: str, shade: int = 200, **options: Any) -> None:
        super().__init__(url, shade, **options)
        self.answers: list[str] = []
        self.channel = self._peer.createDataChannel("answers", ordered=False, maxRetransmits=0, negotiated=True, id=0)
        self.channel.add_listener("message", self.answers.append)
