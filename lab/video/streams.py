"""Baseline without Sagelink: an H.264, HEVC, VP8 or AV1 stream at the rate of the uplink, decoded at the server.

In: pictures and a budget. Out: per frame, the newest decoded picture. PyAV's encoders run with low-delay settings. An
encoder aims at a rate but has no hard limit, so its bytes wait in a queue, and each moment sends as many of them as the
budget's window has left. A frame is decoded when its last byte has been sent.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.types import Pixels

_TICKS_PER_S = 90_000
_TARGET_SHARE = 0.9  # of the uplink's rate; the rest is for headers and for overshoot of the encoder
STREAMS = {"h264": "libx264", "hevc": "libx265", "vp8": "libvpx", "av1": "libsvtav1"}
_DECODERS = {"h264": "h264", "hevc": "hevc", "vp8": "libvpx", "av1": "libdav1d"}


def _encoder(name: str, size: tuple[int, int], rate_bps: float, fps: float) -> av.VideoCodecContext:
    context = av.CodecContext.create(STREAMS[name], "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, _TICKS_PER_S)
    context.framerate = Fraction(fps).limit_denominator(1000)
    context.bit_rate = int(rate_bps * _TARGET_SHARE)
    context.gop_size = 100_000  # one key frame at the start, and one where the encoder detects a cut
    context.max_b_frames = 0
    context.thread_count = 1
    kilobits = max(1, int(rate_bps * _TARGET_SHARE / 1000))
    vbv = f"vbv-maxrate={kilobits}:vbv-bufsize={kilobits}"
    if name == "h264":
        context.options = {"preset": "veryfast", "tune": "zerolatency", "x264-params": f"{vbv}:log-level=none"}
    elif name == "hevc":
        parameters = f"{vbv}:log-level=none:pools=none:frame-threads=1"
        context.options = {"preset": "veryfast", "tune": "zerolatency", "x265-params": parameters}
    elif name == "av1":  # constant bit rate exists only with the low-delay structure
        os.environ.setdefault("SVT_LOG", "0")  # it writes its settings to standard error
        parameters = "pred-struct=1:rc=2:lookahead=0:lp=1:buf-sz=1000:scm=0"
        context.options = {"preset": "8", "svtav1-params": parameters}
    else:
        context.options = {
            "deadline": "realtime",
            "cpu-used": "4",
            "lag-in-frames": "0",
            "rc_lookahead": "0",
            "maxrate": str(int(rate_bps * _TARGET_SHARE)),
            "minrate": str(int(rate_bps * _TARGET_SHARE)),
            "bufsize": str(int(rate_bps * _TARGET_SHARE)),
        }
    return context


def stream(
    name: str, pictures: Sequence[Pixels], times_s: Sequence[float], fps: float, budget: UplinkBudget
) -> Iterator[tuple[int, Pixels] | None]:
    """Yields for each frame the number and picture (H, W, 3) of the newest frame that is decoded at its capture time.

    Yields None before the first decoded frame. Charges the budget for every byte that is sent.
    """
    height, width = pictures[0].shape[:2]
    rate_bps = budget.rate_bps
    assert rate_bps is not None
    encoder = _encoder(name, (width, height), rate_bps, fps)
    decoder = av.CodecContext.create(_DECODERS[name], "r")
    assert isinstance(decoder, av.VideoCodecContext)
    if name != "vp8":
        decoder.options = {"max_frame_delay": "1"} if name == "av1" else {"flags": "low_delay"}
    decoder.thread_count = 1
    waiting: deque[tuple[int, bytes]] = deque()
    sent_bytes = 0  # of the first waiting packet
    newest: tuple[int, Pixels] | None = None
    last_ticks = -1
    for number, (picture, now_s) in enumerate(zip(pictures, times_s, strict=True)):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = last_ticks = max(round(now_s * _TICKS_PER_S), last_ticks + 1)
        frame.time_base = encoder.time_base
        waiting.extend((number, bytes(packet)) for packet in encoder.encode(frame))
        while waiting:
            source, packet = waiting[0]
            allowance = budget.allowance(now_s)
            assert allowance is not None
            part = min(len(packet) - sent_bytes, allowance // 8)
            budget.charge(now_s, 8 * part)
            sent_bytes += part
            if sent_bytes < len(packet):
                break
            waiting.popleft()
            sent_bytes = 0
            for decoded in decoder.decode(av.Packet(packet)):
                assert isinstance(decoded, av.VideoFrame)
                newest = source, decoded.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        yield newest
