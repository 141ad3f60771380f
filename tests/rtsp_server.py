"""An RTSP server for tests. The system's Python runs it: it prints its port and streams a test pattern at /live."""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 (gi wants its versions first)

parser = argparse.ArgumentParser()
parser.add_argument("--port", default="0")
parser.add_argument("--fps", type=int, default=20)
parser.add_argument("--password", help="password of the user `viewer`")
parser.add_argument("--grow-after", type=float, help="seconds after which the picture becomes 320x240")
parser.add_argument("--film", help="an .mp4 file with H.264 video to stream instead of the live test pattern")
parser.add_argument("--udp", action="store_true", help="refuse RTSP over TCP with status 461")
options = parser.parse_args()

Gst.init(None)
size = f"video/x-raw,width={{}},height={{}},framerate={options.fps}/1"
factory = GstRtspServer.RTSPMediaFactory()
live = (
    f"videotestsrc is-live=true pattern=ball ! capsfilter name=size caps={size.format(160, 120)} "
    "! x264enc threads=1 tune=zerolatency key-int-max=10 speed-preset=ultrafast"
)
film = f"filesrc location={options.film} ! qtdemux ! h264parse"
factory.set_launch(f"( {film if options.film else live} ! rtph264pay name=pay0 pt=96 config-interval=-1 )")
factory.set_shared(True)
if options.udp:
    gi.require_version("GstRtsp", "1.0")
    from gi.repository import GstRtsp

    factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)


def grow_later(_, media):
    stage = media.get_element().get_by_name("size")
    caps = Gst.Caps.from_string(size.format(320, 240))
    GLib.timeout_add(int(1000 * options.grow_after), lambda: stage.set_property("caps", caps))


if options.grow_after:
    factory.connect("media-configure", grow_later)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(options.port)
if options.password:
    viewer = GstRtspServer.RTSPToken()
    viewer.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic("viewer", options.password), viewer)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role("viewer")
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)
server.get_mount_points().add_factory("/live", factory)
if server.attach(None) == 0:
    sys.exit("cannot listen")
sys.stdout.write(f"{server.get_bound_port()}\n")
sys.stdout.flush()
GLib.MainLoop().run()
