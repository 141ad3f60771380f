"""Receives video from a WebRTC peer: answers its offer and passes each decoded picture to a callback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagelink.net.connection_steps import failed_handshake
from sagelink.net.decoder_gate import DecoderGate
from sagelink.net.offers import OfferRefused, why_unusable
from sagelink.net.sdp_offer import prepared, shown_codec, video_codecs

if TYPE_CHECKING:
    import av
    from aiortc import MediaStreamTrack, RTCConfiguration, RTCDataChannel, RTCPeerConnection

log = logging.getLogger(__name__)

_ANSWER_S = 6.0  # time limit for the answer to an offer
_FIRST_S = 10.0  # time limit from the answer to the first picture
_CLOSE_S = 1.0
_MAX_UNSENT = 16_384  # bytes that may wait in the data channel


@dataclass(frozen=True, slots=True)
class VideoTerms:
    """Limits for a peer, and the data channel that it must offer."""

    max_silence_s: float  # maximum time without a picture
    max_pixels: int  # width x height of a picture
    codecs: tuple[str, ...] = ("VP8", "H264")
    channel: bool = False  # whether the peer must offer a data channel, for `send_text`


class VideoPeer:
    """One connection to a peer that sends one video track. Further tracks, and audio, are declined.

    In the event loop, `on_frame` is called with each decoded picture, and `on_end` once, with the reason for the end.
    """

    def __init__(
        self,
        on_frame: Callable[[av.VideoFrame], None],
        on_end: Callable[[str], None],
        terms: VideoTerms,
        configuration: RTCConfiguration | None = None,
    ) -> None:
        """`configuration`: ICE servers; without it, no STUN server is used."""
        from aiortc import RTCConfiguration

        from sagelink.net.peer_compatibility import compatible_connection

        self._on_frame = on_frame
        self._on_end = on_end
        self._terms = terms
        self._connection = compatible_connection(configuration or RTCConfiguration([]))
        self._connection.add_listener("connectionstatechange", self._state_changed)
        self._connection.add_listener("datachannel", lambda _: self._end("the peer opened a channel of its own"))
        self._channel = _channel(self._connection, self._end) if terms.channel else None
        self._reading: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.fault: str | None = None

    async def answer(self, offer: str) -> str:
        """Returns the SDP answer to an SDP offer. Raises OfferRefused, and closes the connection in that case."""
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
        from aiortc.exceptions import OperationError

        from sagelink.net.peer_compatibility import accept_short_checks, mended_offer, tolerate_in_handshake

        if ("\nm=application" in offer) is not self._terms.channel:
            raise OfferRefused("a data channel is needed" if self._terms.channel else "data channels are not accepted")
        self._add_transceiver()
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(prepared(mended_offer(offer)), "offer"))
            track = self._choose_track()
            for transport in {transceiver.receiver.transport for transceiver in self._connection.getTransceivers()}:
                accept_short_checks(transport.transport)
                tolerate_in_handshake(transport)
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except OfferRefused:
            raise
        except Exception as error:  # the parser of aiortc does not validate, and raises many kinds of errors
            if isinstance(error, OperationError) and " video " in str(error):  # no codec in common
                codecs = ", ".join(video_codecs(offer)) or "no codec"
                raise OfferRefused(f"the offer has video as {codecs}; accepted: {self._accepted_codecs()}") from None
            raise OfferRefused(f"not a usable SDP offer: {why_unusable(error)}") from None
        self._reading = asyncio.create_task(self._read(track))
        sdp: str = self._connection.localDescription.sdp
        return sdp

    def _add_transceiver(self) -> None:
        """Adds a transceiver with the accepted codecs; aiortc assigns the first video section of the offer to it."""
        from aiortc import RTCRtpReceiver

        known = RTCRtpReceiver.getCapabilities("video")
        assert known is not None
        accepted = {f"video/{name}" for name in (*self._terms.codecs, "rtx")}
        transceiver = self._connection.addTransceiver("video", direction="recvonly")
        transceiver.setCodecPreferences([codec for codec in known.codecs if codec.mimeType in accepted])

    def _choose_track(self) -> MediaStreamTrack:
        """Accepts the first video track and declines the others. Raises OfferRefused if there is none."""
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
            raise OfferRefused(f"the offer sends no video; accepted: one video track, {self._accepted_codecs()}")
        return track

    def _accepted_codecs(self) -> str:
        names = [shown_codec(name) for name in self._terms.codecs]
        return f"{' or '.join(names)}{' (baseline, packetization-mode 1)' if 'H264' in self._terms.codecs else ''}"

    async def _read(self, track: MediaStreamTrack) -> None:
        from aiortc.mediastreams import MediaStreamError

        timeout_s = _FIRST_S
        try:
            while True:
                async with asyncio.timeout(timeout_s):
                    frame = await track.recv()
                timeout_s = self._terms.max_silence_s
                self._on_frame(frame)  # type: ignore[arg-type]  # a video track has video frames
        except TimeoutError:
            self._end(f"no picture for {timeout_s:g} s")
        except MediaStreamError:
            self._end("the peer disconnected")

    def send_text(self, text: str) -> None:
        """Sends text on the data channel; drops it if the channel is not open or too much is waiting."""
        channel = self._channel
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount <= _MAX_UNSENT:
            channel.send(text)

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        if state in ("failed", "closed"):
            self._end(self._failure() if state == "failed" else "the peer disconnected")

    def _failure(self) -> str:
        transceivers = self._connection.getTransceivers()
        handshake = failed_handshake(transceivers[0].receiver.transport) if transceivers else None
        return f"the connection failed: {handshake or 'no packets pass (ICE)'}"

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
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._connection.close()
        except TimeoutError:
            pass
        except Exception:  # aiortc cannot close a connection whose offer it could not read
            log.debug("event=close_failed", exc_info=True)


def _channel(connection: RTCPeerConnection, end: Callable[[str], None]) -> RTCDataChannel:
    """The negotiated data channel with id 0: unordered, without retransmission. The peer must not send on it."""
    channel = connection.createDataChannel("answers", ordered=False, maxRetransmits=0, negotiated=True, id=0)
    channel.add_listener("message", lambda _: end("the peer sent data on the answer channel"))
    channel.add_listener("close", lambda: end("the peer disconnected"))
    return channel
