"""FFmpeg's WHIP muxer, as PyAV brings it, as a peer: pushes white H.264 pictures to a URL for ever."""

import itertools
import sys
import time
from fractions import Fraction

import av
import numpy as np

RATE = 20
OPTIONS = {"profile": "baseline", "tune": "zerolatency", "preset": "ultrafast", "bf": "0", "g": "20"}
with av.open(sys.argv[1], "w", format="whip") as output:
    stream = output.add_stream("libx264", rate=RATE, options=OPTIONS)
    stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
    picture = av.VideoFrame.from_ndarray(np.full((120, 160, 3), 255, np.uint8), format="rgb24")
    for number in itertools.count():
        frame = picture.reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        for packet in stream.encode(frame):
            output.mux(packet)
        time.sleep(1 / RATE)
