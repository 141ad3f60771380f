"""A peer that sends video over WebRTC: one connection, of which each new picture is handed on and none is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagelink.net.decoder_gate import DecoderGate
from sagelink.net.whip import OfferRefused

if TYPE_CHECKING:
    import av
    from aiortc import MediaStreamTrack, RTCConfiguration, RTCDataChannel, RTCPeerConnection

_ANSWER_S = 6.0  # longest for an answer
_FIRST_S = 10.0  # longest from there to the first picture
_CLOSE_S = 1.0
_MOST_SECTIONS = 8  # of an offer
_MOST_UNSENT = 16_384  # bytes that may wait on the channel


@dataclass(frozen=True, slots=True)
class VideoTerms:
    """What a peer's offer may hold, and how it may behave."""

    max_silence_s: float  # longest without a picture
    max_pixels: int  # of a picture
    codecs: tuple[str, ...] = ("VP8", "H264")
    channel: bool = False  # whether there is one, for what `say` says


class VideoPeer:
    """`on_frame` gets each picture as it was decoded, `on_end` is told once why no more will come; in the event loop.
    Further tracks, and sound, are declined."""

    def __init__(
        self,
        on_frame: Callable[[av.VideoFrame], None],
        on_end: Callable[[str], None],
        terms: VideoTerms,
        configuration: RTCConfiguration | None = None,
    ) -> None:
        """`configuration`: without one, no STUN server is asked."""
        from aiortc import RTCConfiguration, RTCPeerConnection

        self._on_frame = on_frame
        self._on_end = on_end
        self._terms = terms
        self._connection = RTCPeerConnection(configuration or RTCConfiguration([]))
        self._connection.add_listener("connectionstatechange", self._changed)
        self._connection.add_listener("datachannel", lambda _: self._end("the peer opened a channel of its own"))
        self._channel = _channel(self._connection, self._end) if terms.channel else None
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
        if ("\nm=application" in offer) is not self._terms.channel:
            raise OfferRefused("a data channel is wanted" if self._terms.channel else "data channels are not taken")
        self._prefer()
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            track = self._choose()
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except OfferRefused:
            raise
        except Exception as error:  # the parser of aiortc believes what it reads, and fails in many ways
            raise OfferRefused(f"not an SDP offer that can be used: {error or type(error).__name__}") from None
        self._reading = asyncio.create_task(self._read(track))
        sdp: str = self._connection.localDescription.sdp
        return sdp

    def _prefer(self) -> None:
        """The first video section of the offer meets this transceiver, and its codecs."""
        from aiortc import RTCRtpReceiver

        known = RTCRtpReceiver.getCapabilities("video")
        assert known is not None
        wanted = {f"video/{name}" for name in (*self._terms.codecs, "rtx")}
        transceiver = self._connection.addTransceiver("video", direction="recvonly")
        transceiver.setCodecPreferences([codec for codec in known.codecs if codec.mimeType in wanted])

    def _choose(self) -> MediaStreamTrack:
        """The one track that is taken. Raises OfferRefused."""
        track: MediaStreamTrack | None = None
        for transceiver in self._connection.getTransceivers():
            if track is None and transceiver.kind == "video" and transceiver.receiver.track is not None:
                track = transceiver.receiver.track
                transceiver.direction = "recvonly"
                gate = DecoderGate(self._terms.max_pixels, self._end)
                transceiver.receiver._RTCRtpReceiver__decoder_queue = gate  # type: ignore[attr-defined]
            else:
                transceiver.direction = "inactive"
        if track is None:
            codecs = " or ".join(self._terms.codecs)
            raise OfferRefused(f"the offer sends no video; accepted: one video track, {codecs}")
        return track

    async def _read(self, track: MediaStreamTrack) -> None:
        from aiortc.mediastreams import MediaStreamError

        patience_s = _FIRST_S
        try:
            while True:
                async with asyncio.timeout(patience_s):
                    frame = await track.recv()
                patience_s = self._terms.max_silence_s
                self._on_frame(frame)  # type: ignore[arg-type]  # a video track has video frames
        except TimeoutError:
            self._end(f"no picture for {patience_s:g} s")
        except MediaStreamError:
            self._end("the peer has left")

    def say(self, text: str) -> None:
        """Sends on the channel; what the peer does not take now is lost."""
        channel = self._channel
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount <= _MOST_UNSENT:
            channel.send(text)

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


def _channel(connection: RTCPeerConnection, end: Callable[[str], None]) -> RTCDataChannel:
    """Stream 0, agreed with the peer: nothing is sent twice, and nothing is expected to come."""
    channel = connection.createDataChannel("answers", ordered=False, maxRetransmits=0, negotiated=True, id=0)
    channel.add_listener("message", lambda _: end("the peer spoke where it only listens"))
    channel.add_listener("close", lambda: end("the peer has left"))
    return channel
