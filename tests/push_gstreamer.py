"""GStreamer's webrtcbin as a WHIP peer. The system's Python runs it with a URL and a codec; it pushes until SIGTERM."""

import signal
import sys
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402 (gi wants its versions first)

url, codec = sys.argv[1:]
RTP = "application/x-rtp,media=video,encoding-name"
ENCODERS = {
    "VP8": f"vp8enc deadline=1 keyframe-max-dist=20 ! rtpvp8pay ! {RTP}=VP8,payload=96",
    "H264": "x264enc tune=zerolatency key-int-max=20 speed-preset=ultrafast "
    f"! video/x-h264,profile=constrained-baseline ! rtph264pay config-interval=-1 ! {RTP}=H264,payload=97",
}
Gst.init(None)
pipeline = Gst.parse_launch(
    "videotestsrc is-live=true pattern=white ! video/x-raw,width=160,height=120,framerate=20/1,format=I420 "
    f"! {ENCODERS[codec]} ! webrtcbin name=peer bundle-policy=max-bundle"
)
peer = pipeline.get_by_name("peer")


def on_negotiation_needed(_):
    transceiver = peer.emit("get-transceiver", 0)
    transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
    peer.emit("create-offer", None, Gst.Promise.new_with_change_func(on_offer, None))


def on_offer(promise, _):
    promise.wait()
    reply = promise.get_reply()  # owns the offer
    peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())


def on_gathered(*_):
    if peer.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
        return
    offer = peer.get_property("local-description").sdp.as_text().encode()
    asked = urllib.request.Request(url, offer, {"Content-Type": "application/sdp"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=20) as answer:  # noqa: S310
        session.append(urllib.parse.urljoin(url, answer.headers["Location"]))
        _, sdp = GstSdp.SDPMessage.new_from_text(answer.read().decode())
    description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
    peer.emit("set-remote-description", description, Gst.Promise.new())


def leave():
    for location in session:
        urllib.request.urlopen(urllib.request.Request(location, method="DELETE"), timeout=20).close()  # noqa: S310
    loop.quit()


session, loop = [], GLib.MainLoop()
GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, leave)
peer.connect("on-negotiation-needed", on_negotiation_needed)
peer.connect("notify::ice-gathering-state", on_gathered)
pipeline.set_state(Gst.State.PLAYING)
loop.run()
