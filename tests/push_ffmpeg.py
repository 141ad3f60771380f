"""FFmpeg's WHIP muxer, of PyAV, as a peer: pushes H.264 to a URL until SIGTERM. Optional: certificate file, key file.

PyAV's FFmpeg uses GnuTLS, and without these files makes a certificate on secp224r1.
"""

import signal
import sys
import time

import av
import numpy as np

signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the muxer ends its session
url, *files = sys.argv[1:]
white = np.full((120, 160, 3), 255, np.uint8)
with av.open(url, "w", format="whip", options=dict(zip(("cert_file", "key_file"), files, strict=False))) as output:
    encoder = {"profile": "baseline", "preset": "ultrafast", "tune": "zerolatency", "g": "20"}
    stream = output.add_stream("libx264", rate=20, options=encoder)
    stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
    for number in range(10**6):
        picture = av.VideoFrame.from_ndarray(white, format="rgb24")
        picture.pts = number
        output.mux(stream.encode(picture))
        time.sleep(1 / 20)
