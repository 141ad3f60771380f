"""A peer that sends video over WebRTC: one connection, of which each new picture is handed on and none is kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.offers import OfferRefused

if TYPE_CHECKING:
    import av
    from aiortc import MediaStreamTrack

_ANSWER_S = 6.0  # longest for an answer
_FIRST_S = 10.0  # longest from there to the first picture
_CLOSE_S = 1.0
_MOST_SECTIONS = 8  # of an offer

for _name in ("aiortc", "aioice"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # one line of ours says what happens to a connection


class VideoPeer:
    """`on_frame` gets each picture as it was decoded, `on_end` is told once why no more will come; in the event loop.
    Further tracks, and sound, are declined. `silent_s`: longest without a picture."""

    def __init__(
        self, on_frame: Callable[[av.VideoFrame], None], on_end: Callable[[str], None], silent_s: float
    ) -> None:
        from aiortc import RTCPeerConnection

        self._on_frame = on_frame
        self._on_end = on_end
        self._silent_s = silent_s
        self._connection = RTCPeerConnection()
        self._connection.add_listener("connectionstatechange", self._changed)
        self._reading: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.fault: str | None = None

    async def answer(self, offer: str) -> str:
        """Raises OfferRefused, and is closed then."""
        answer = None
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._answer(offer)
        except TimeoutError:
            raise OfferRefused("no answer in time", 503) from None
        finally:
            if answer is None:
                await self.close()
        return answer

    async def _answer(self, offer: str) -> str:
        from aiortc import RTCSessionDescription

        if offer.count("\nm=") > _MOST_SECTIONS:
            raise OfferRefused(f"an offer has at most {_MOST_SECTIONS} sections")
        if "\nm=application" in offer:
            raise OfferRefused("data channels are not taken here")
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        except Exception as error:  # the parser of aiortc believes what it reads, and fails in many ways
            raise OfferRefused(f"not an SDP offer that can be used: {error or type(error).__name__}") from None
        track: MediaStreamTrack | None = None
        for transceiver in self._connection.getTransceivers():
            if track is None and transceiver.kind == "video" and transceiver.receiver.track is not None:
                track = transceiver.receiver.track
                transceiver.direction = "recvonly"
            else:
                transceiver.direction = "inactive"
        if track is None:
            raise OfferRefused("the offer sends no video; accepted: one video track, H.264 or VP8")
        try:
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:
            raise OfferRefused(f"not an SDP offer that can be used: {error or type(error).__name__}") from None
        self._reading = asyncio.create_task(self._read(track))
        sdp: str = self._connection.localDescription.sdp
        return sdp

    async def _read(self, track: MediaStreamTrack) -> None:
        from aiortc.mediastreams import MediaStreamError

        patience_s = _FIRST_S
        try:
            while True:
                async with asyncio.timeout(patience_s):
                    frame = await track.recv()
                patience_s = self._silent_s
                self._on_frame(frame)  # type: ignore[arg-type]  # a video track has video frames
        except TimeoutError:
            self._end(f"no picture for {patience_s:g} s")
        except MediaStreamError:
            self._end("the peer has left")

    def _changed(self) -> None:
        state = self._connection.connectionState
        if state in ("failed", "closed"):
            self._end("the connection failed" if state == "failed" else "the peer has left")

    def _end(self, reason: str) -> None:
        if self.fault is None:
            self.fault = reason
            self._closing = asyncio.create_task(self._close())
            self._on_end(reason)

    async def close(self) -> None:
        self._end("closed")
        assert self._closing is not None
        await self._closing

    async def _close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._connection.close()
