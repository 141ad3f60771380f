"""What one would do without Sagelink: a video stream at the rate of the uplink, classified at the other end.

PyAV's encoders with settings for no delay. An encoder aims at a rate but keeps no hard limit, so its bytes wait in a
queue and enter the same ledger as every other policy, as many in each moment as the window has left. A frame is decoded
when its last byte is through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np

from sagelink.pipeline.budget import UplinkBudget
from sagelink.pipeline.types import Pixels

_TICKS = 90_000  # a second
_AIM = 0.9  # of the uplink's rate: headers, and what an encoder overshoots
STREAMS = {"h264": "libx264", "vp8": "libvpx"}


def _encoder(name: str, size: tuple[int, int], rate_bps: float, fps: float) -> av.VideoCodecContext:
    context = av.CodecContext.create(STREAMS[name], "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, _TICKS)
    context.framerate = Fraction(fps).limit_denominator(1000)
    context.bit_rate = int(rate_bps * _AIM)
    context.gop_size = 100_000  # one key frame, and where the encoder sees a cut
    context.max_b_frames = 0
    context.thread_count = 1
    if name == "h264":
        kilobits = max(1, int(rate_bps * _AIM / 1000))
        vbv = f"vbv-maxrate={kilobits}:vbv-bufsize={kilobits}"
        context.options = {"preset": "veryfast", "tune": "zerolatency", "x264-params": f"{vbv}:log-level=none"}
    else:
        context.options = {
            "deadline": "realtime",
            "cpu-used": "4",
            "lag-in-frames": "0",
            "rc_lookahead": "0",
            "maxrate": str(int(rate_bps * _AIM)),
            "minrate": str(int(rate_bps * _AIM)),
            "bufsize": str(int(rate_bps * _AIM)),
        }
    return context


def stream(
    name: str, pictures: Sequence[Pixels], times_s: Sequence[float], fps: float, budget: UplinkBudget
) -> Iterator[tuple[int, Pixels] | None]:
    """For each frame, what the other end can see when it has just been captured: the number of the newest frame that
    is through, and its picture as decoded; None before the first. Raises nothing that a codec does not."""
    height, width = pictures[0].shape[:2]
    rate_bps = budget.rate_bps
    assert rate_bps is not None
    encoder = _encoder(name, (width, height), rate_bps, fps)
    decoder = av.CodecContext.create("h264" if name == "h264" else "libvpx", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    if name == "h264":
        decoder.options = {"flags": "low_delay"}
    decoder.thread_count = 1
    waiting: deque[tuple[int, bytes]] = deque()
    paid = 0  # bytes of the first that is waiting
    seen: tuple[int, Pixels] | None = None
    last_ticks = -1
    for number, (picture, now_s) in enumerate(zip(pictures, times_s, strict=True)):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = last_ticks = max(round(now_s * _TICKS), last_ticks + 1)
        frame.time_base = encoder.time_base
        waiting.extend((number, bytes(packet)) for packet in encoder.encode(frame))
        while waiting:
            of, data = waiting[0]
            allowance = budget.allowance(now_s)
            assert allowance is not None
            part = min(len(data) - paid, allowance // 8)
            budget.charge(now_s, 8 * part)
            paid += part
            if paid < len(data):
                break
            waiting.popleft()
            paid = 0
            for decoded in decoder.decode(av.Packet(data)):
                assert isinstance(decoded, av.VideoFrame)
                seen = of, decoded.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        yield seen
