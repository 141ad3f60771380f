"""FFmpeg's WHIP muxer, of PyAV, as a peer: pushes H.264 to a URL until SIGTERM.

PyAV 17 and 18 have FFmpeg 8.1 with GnuTLS, whose certificate is on secp224r1; that of PyAV 19, FFmpeg 9, is not.
"""

import signal
import sys
import time

import av
import numpy as np

signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the muxer ends its session
white = np.full((120, 160, 3), 255, np.uint8)
with av.open(sys.argv[1], "w", format="whip") as output:
    encoder = {"profile": "baseline", "preset": "ultrafast", "tune": "zerolatency", "g": "20"}
    stream = output.add_stream("libx264", rate=20, options=encoder)
    stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
    for number in range(10**6):
        picture = av.VideoFrame.from_ndarray(white, format="rgb24")
        picture.pts = number
        output.mux(stream.encode(picture))
        time.sleep(1 / 20)
