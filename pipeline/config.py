"""What a user can set: one model a stage, every field with its meaning. Unknown keys are errors."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.quantities import Duration, FrameSize, Rate, Size
from sagelink.pipeline.urls import is_webrtc

ACCEPTED_SOURCES = (
    "a video file, a folder of images, a webcam (0, 1 ... or /dev/video0), an rtsp:// or http(s):// URL, "
    "webrtc: (a peer pushes to us), or synthetic:N"
)


class PairDefaults(NamedTuple):
    """What a pair of models brings along."""

    edge: str
    server: str


MODEL_PAIRS = {
    "deit": PairDefaults("deit_tiny_patch16_224.fb_in1k", "deit_base_patch16_224.fb_in1k"),
    "demo": PairDefaults("demo-edge", "demo-server"),
}


_LEVEL = r"^[^+#/$\s][^+#/\s]*$"  # one level of an MQTT topic
_LEVEL_OR_EMPTY = r"^([^+#/$\s][^+#/\s]*)?$"
_ICE_SERVER = re.compile(r"(stun:|turns?:)[^\s@/?:]+(:\d{1,5})?(\?transport=tcp)?")
_TOPIC = r"^[^+#/$\s][^+#/\s]*(/[^+#/\s]+)*$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class BudgetConfig(_Section):
    """The hard rolling uplink budget: in every window at most uplink x window bits."""

    uplink: Rate = Field(256_000.0, description="Rate, such as 64kbit/s, 0.5Mbit/s, 8kB/s; or unlimited")
    window: Duration = Field(1.0, description="Length of the rolling window, such as 1s or 500ms")


Fraction = Annotated[float, Field(ge=0, le=1)]  # of a picture's width or height


class CameraOptions(_Section):
    """What each camera may have of its own."""

    fps: float | None = Field(
        None, gt=0, le=1000, description="Frames a second that are taken, by their times; empty: all"
    )
    roi: tuple[Fraction, Fraction, Fraction, Fraction] | None = Field(
        None,
        description="Region of interest: left, top, right, bottom as shares of the picture, such as [0.25, 0, 1, 0.5]; "
        "nothing outside it is ever looked at",
    )
    mask: tuple[Annotated[tuple[tuple[Fraction, Fraction], ...], Field(min_length=3)], ...] = Field(
        (),
        description="Polygons that are greyed out before anything looks: corners [x, y] as shares of the whole "
        "picture, such as [[[0, 0], [0.4, 0], [0, 0.3]]]",
    )
    backend: Literal["opencv", "pyav"] = Field(
        "opencv", description="Library that reads cameras: opencv decodes faster, pyav tells more about failures"
    )
    size: FrameSize | None = Field(None, description="Picture size that a webcam is asked for, such as 1280x720")
    camera_fps: float | None = Field(None, gt=0, le=1000, description="Frames a second that a webcam is asked for")
    mjpg: bool = Field(False, description="Ask a webcam for Motion JPEG: more frames a second at large sizes")
    image_fps: float = Field(1.0, gt=0, le=1000, description="Pace of a folder of images, frames per second")
    open_timeout: Duration = Field(10.0, description="Longest wait for a camera to open")
    read_timeout: Duration = Field(10.0, description="A camera that is silent for longer is connected anew")
    stall_after: Duration = Field(2.0, description="A camera that is silent for longer is told as stalled")
    token_file: Path | None = Field(
        None, description="webrtc: source: file with the token that a peer shows; SAGELINK_PUSH_TOKEN overrides it"
    )

    @field_validator("roi")
    @classmethod
    def _has_area(cls, roi: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if roi is not None and not (roi[0] < roi[2] and roi[1] < roi[3]):
            raise ValueError(f"left is less than right and top less than bottom; got {list(roi)}")
        return roi


class CaptureConfig(CameraOptions):
    """Where frames come from. From `fps` to `token_file` the keys are also the defaults of each of `cameras`."""

    source: str = Field("", description="File, folder of images, webcam index or device, URL, webrtc:, or synthetic:N")
    realtime: bool = Field(False, description="Play a file at its own pace and budget on the monotonic clock")
    resize: Literal["squash", "crop"] = Field(
        "squash", description="How a frame becomes the models' square picture: all of it, or its central square"
    )
    duration: Duration | None = Field(None, description="End after this long: of a replay in its own time")
    max_frames: int | None = Field(None, ge=1, description="End a camera after this many frames")


class CameraConfig(CameraOptions):
    """One of several cameras. What it leaves out of the keys of `capture` it takes from there."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Its name in results: letters, digits, _ and -")
    source: str = Field(min_length=1, description="As `capture.source`")
    weight: float = Field(1.0, gt=0, le=1e6, description="Its part of the shared budget while others want bits too")
    min_share: Fraction = Field(0.0, description="Share of the shared budget that no other camera can take from it")
    budget: BudgetConfig | None = Field(None, description="A budget of its own, outside the shared one")


class ModelConfig(_Section):
    """A model of one side."""

    model: str = Field("", description="timm name, or demo-edge, demo-server; empty: of the pair that `models` names")
    checkpoint: Path | None = Field(None, description="safetensors file with the model's weights")
    labels: Path | None = Field(None, description="Text file with one class name a line")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?|mps)$", description="cpu, cuda, cuda:N or mps")


class GateConfig(_Section):
    """Which frames are worth offloading."""

    policy: str = Field("min_entropy", description="min_entropy, margin, always or never")
    threshold: float | None = Field(
        None,
        ge=0,
        description="min_entropy: offload above this many bits, -log2 of the top probability; margin: offload below "
        "this lead of the first over the second probability; empty: the policy's own",
    )


class VideoConfig(_Section):
    """Spending over time: what is known of the scene that a camera looks at, and which frames are worth bits then."""

    policy: Literal["auto", "always", "never"] = Field(
        "auto",
        description="auto: for cameras and video files, not for folders of images and drawn worlds; never: each frame "
        "is decided on alone",
    )
    cuts: bool = Field(True, description="Forget the scene where the picture changes to another; false: never")
    zoom: bool | None = Field(
        None,
        description="Look at the part that matters in two frames of three, and send what was looked at; empty: unless "
        "a model is of the demo pair, which knows things at one size only. Never with `select.memory`, which needs the "
        "same view of each frame",
    )
    average_edge: bool = Field(True, description="Average the edge's answers over the frames of a scene")
    hold_answers: bool = Field(
        True, description="A server answer counts for later frames of its scene too, with age less"
    )
    value_gate: bool = Field(
        True,
        description="No message that is expected to gain next to nothing; only with `fuse.rule` weighted and no "
        "`fuse.weights`, because the frontier's weights tell the gain",
    )
    saving: bool = Field(
        False, description="Wait for bits for a useful message, and keep some for scenes to come; as `value`"
    )


class SelectConfig(_Section):
    """Which units of a frame are sent."""

    selector: str = Field("coverage", description="coverage, sage, topk, mmr, fps, uniform or random")
    importance: Literal["last", "rollout", "gradient"] = Field(
        "gradient",
        description="last: CLS attention of the last layer; rollout: of the last six; gradient: attention weighted by "
        "what the edge's answer hangs on, at the price of a short backward pass",
    )
    units: int | None = Field(None, ge=1, description="Most units that one frame may send; empty: all of the grid")
    min_units: int = Field(16, ge=1, description="Fewer than this (or than `units`) are not worth a message")
    seed: int = Field(0, ge=0, description="For the random selector")
    memory: Duration | None = Field(
        None,
        description="How long a unit that the server remembers counts as there while it looks the same; empty: every "
        "message stands alone",
    )


class EncodeConfig(_Section):
    """How evidence is coded."""

    codec: str = Field(
        "auto",
        description="auto: whichever of the frontier is worth most; or one of avif, webp, avif-frame, webp-frame, "
        "jpeg-frame, raw-zstd, token-zstd",
    )
    frontier: Path | None = Field(
        None, description="File of measured operating points (`sagelink calibrate`); empty: the server model's own"
    )
    slack: float = Field(
        0.02, ge=0, lt=1, description="Agreement with the full-frame answer that may be given up for fewer bytes"
    )
    zoom: bool = Field(
        True,
        description="Send, of a frame that is decided on alone, the part that matters most, closer, where the frontier "
        "says that this is worth more than the whole; false: always what the edge looked at",
    )
    max_message: Size = Field(256_000, description="Largest message, whatever the budget has left")


class ShipConfig(_Section):
    """How evidence travels."""

    server: str = Field(
        "",
        description="Where the server is: a broker, mqtt://host:port; or itself, webrtc+http://host:port; empty: in "
        "this process",
    )
    in_flight: int = Field(2, ge=1, le=64, description="Messages that may be unacknowledged")
    deadline: Duration = Field(1.0, description="Live: a reply later than this leaves the edge verdict")


class MqttConfig(_Section):
    """How to speak to an MQTT broker. A password comes from SAGELINK_MQTT_PASSWORD or a file, never from here."""

    prefix: str = Field("sagelink", pattern=_TOPIC, description="First levels of every topic")
    node: str = Field("", pattern=_LEVEL_OR_EMPTY, description="This machine's level in topics; empty: its host name")
    protocol: Literal["5", "3.1.1"] = Field("5", description="5 falls back to 3.1.1 where the broker knows no 5")
    username: str = Field("", description="User; SAGELINK_MQTT_USERNAME overrides it")
    password_file: Path | None = Field(None, description="File with the password; SAGELINK_MQTT_PASSWORD overrides it")
    ca: Path | None = Field(None, description="PEM file of the authorities to trust; empty: those of the system")
    certificate: Path | None = Field(None, description="PEM file of a client certificate")
    key: Path | None = Field(None, description="PEM file of its private key")
    keepalive: Duration = Field(30.0, description="Longest silence on the connection; each keep-alive costs 1072 bits")


class WebRtcConfig(_Section):
    """How edge and server speak WebRTC. The token comes from SAGELINK_WEBRTC_TOKEN or a file, never from here."""

    token_file: Path | None = Field(
        None,
        description="File with the token that an edge shows and a server asks for; SAGELINK_WEBRTC_TOKEN overrides it",
    )
    node: str = Field(
        "", pattern=_LEVEL_OR_EMPTY, description="This machine's name at the server; empty: its host name"
    )
    ice_servers: tuple[str, ...] = Field(
        (),
        description="One STUN server at most, and one TURN server: [stun:host:port], [turn:host:port], "
        "['turn:host:port?transport=tcp'], [turns:host:port]",
    )
    turn_username: str = Field("", description="User at the TURN server")
    turn_password_file: Path | None = Field(
        None, description="File with the password there; SAGELINK_TURN_PASSWORD overrides it"
    )
    ca: Path | None = Field(
        None, description="Edge: PEM file of the authorities to trust with webrtc+https; empty: those of the system"
    )
    certificate: Path | None = Field(None, description="Server: PEM file of its certificate, for webrtc+https")
    key: Path | None = Field(None, description="Server: PEM file of the certificate's private key")
    part_wait: Duration = Field(
        0.12, description="Server: a frame in parts is classified when no further part comes for this long"
    )
    max_peers: int = Field(256, ge=1, le=4096, description="Server: most peers at a time")
    max_viewers: int = Field(
        8, ge=0, le=256, description="Server: most browsers at a time that show it their camera; 0: no page for them"
    )

    @field_validator("ice_servers")
    @classmethod
    def _one_of_each(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if "@" in url:
                raise ValueError(
                    "accepted: addresses without credentials; got one with some. Set webrtc.turn_username and "
                    "SAGELINK_TURN_PASSWORD"
                )
            if not _ICE_SERVER.fullmatch(url) or (url.startswith("stun") and "?" in url):
                raise ValueError(
                    f"accepted: stun:host[:port], turn:host[:port], turn:host[:port]?transport=tcp, turns:host[:port]; "
                    f"got {url!r}"
                )
        for kind in ("stun", "turn"):
            if sum(url.startswith(kind) for url in urls) > 1:
                raise ValueError(f"accepted: one {kind.upper()} server; got {', '.join(urls)}")
        return urls


class ServeConfig(_Section):
    """What `sagelink serve` adds: where it listens, and how it shares its model between cameras."""

    listen: str = Field(
        "",
        description="Broker to serve cameras of: mqtt://host:port or mqtts://host:port; or address to serve them on "
        "directly: webrtc+http://host:port or webrtc+https://host:port",
    )
    embedded_broker: str = Field(
        "", description="Run a broker in this process instead, on host:port; beyond loopback only with a password"
    )
    group: str = Field(
        "servers", pattern=_LEVEL, description="Servers of one group share the frames; each group gets all of them"
    )
    http: str = Field("", description="host:port of /healthz, /readyz and /metrics; empty: none")
    workers: int = Field(1, ge=1, le=64, description="Batches classified at the same time, each in a thread")
    max_wait: Duration = Field(0.002, description="Longest that a frame waits for others to share a batch")
    max_batch_units: int = Field(4096, ge=1, le=262_144, description="Units in a batch, padding included")
    memory: Size | None = Field(
        256_000_000, description="Bytes of units to remember for cameras that ask for it; empty: none"
    )
    queue: int = Field(
        4, ge=1, le=64, description="Frames of one camera that may wait; a further one displaces the oldest"
    )


class FuseConfig(_Section):
    """How the two answers become one."""

    rule: Literal["weighted", "server"] = Field(
        "weighted", description="weighted: sum of log-probabilities; server: the server's answer replaces the edge's"
    )
    weights: dict[float, float] | None = Field(
        None,
        description="Weight of the server's log-probabilities (the edge's is 1) by share of units received, such as "
        "{0: 0, 0.5: 0.3, 1: 0.5}; empty: that of the operating point, as the frontier has it",
    )

    @field_validator("weights")
    @classmethod
    def _grows(cls, weights: dict[float, float] | None) -> dict[float, float] | None:
        if weights is None:
            return None
        shares = sorted(weights)
        values = [weights[share] for share in shares]
        if not all(math.isfinite(number) for number in [*shares, *values]):
            raise ValueError("shares and weights are numbers")
        if not shares or shares[0] < 0 or shares[-1] > 1 or values[0] < 0 or values != sorted(values):
            raise ValueError("shares lie in 0..1, weights are 0 or more and never fall as the share grows")
        return {share: weights[share] for share in shares}


class OutputConfig(_Section):
    """What a run leaves behind."""

    out: Path | None = Field(None, description="Folder for results.jsonl and summary.json")
    annotate: Path | None = Field(None, description="Video of the run, an .mp4 file")
    record: Path | None = Field(None, description="Folder for a recording that `sagelink replay` can run again")
    pictures: int = Field(
        12,
        ge=0,
        le=200,
        description="With `out`: small pictures kept for the report, so many each of the frames that cost most and of "
        "those least certain; 0 keeps none",
    )

    @field_validator("annotate")
    @classmethod
    def _mp4(cls, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() != ".mp4":
            raise ValueError(f"{str(path)!r} is not an .mp4 file")
        return path


class DashboardConfig(_Section):
    """The web page that shows a run, with metrics and health."""

    address: str | None = Field(None, description="host:port to serve it on, such as 127.0.0.1:8600; empty: nowhere")
    token: SecretStr | None = Field(
        None,
        description="What viewers must know; needed on an address that others can reach. Better given as "
        "SAGELINK_DASHBOARD_TOKEN in the environment",
    )


class HomeAssistantConfig(_Section):
    """What Home Assistant is told over MQTT; the user and certificates are those of `mqtt`."""

    broker: str = Field("", description="Its broker, mqtt://host:port, on the site's own network; empty: none is told")
    discovery: str = Field("homeassistant", pattern=_TOPIC, description="Home Assistant's discovery prefix")
    every: Duration = Field(5.0, description="Time between two states")


class Config(_Section):
    """Everything that `sagelink run` needs."""

    models: Literal["deit", "demo"] = Field("deit", description="Pair of models where `model` is left empty")
    threads: int = Field(
        max(1, (os.cpu_count() or 2) // 2), ge=1, le=256, description="CPU threads of one model's forward pass"
    )
    capture: CaptureConfig = CaptureConfig()
    cameras: tuple[CameraConfig, ...] = Field((), description="Several cameras, instead of `capture.source`")
    edge: ModelConfig = ModelConfig()
    server: ModelConfig = ModelConfig()
    gate: GateConfig = GateConfig()
    video: VideoConfig = VideoConfig()
    budget: BudgetConfig = BudgetConfig()
    select: SelectConfig = SelectConfig()
    encode: EncodeConfig = EncodeConfig()
    ship: ShipConfig = ShipConfig()
    mqtt: MqttConfig = MqttConfig()
    webrtc: WebRtcConfig = WebRtcConfig()
    serve: ServeConfig = ServeConfig()
    fuse: FuseConfig = FuseConfig()
    output: OutputConfig = OutputConfig()
    dashboard: DashboardConfig = DashboardConfig()
    home_assistant: HomeAssistantConfig = HomeAssistantConfig()

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, tree: Any) -> Any:
        """What a camera leaves out it takes from `capture`."""
        if not isinstance(tree, dict) or not isinstance(tree.get("cameras"), list | tuple):
            return tree
        capture = tree.get("capture")
        given = capture if isinstance(capture, dict) else {}
        shared = {key: given[key] for key in CameraOptions.model_fields if key in given}
        cameras = [shared | camera if isinstance(camera, dict) else camera for camera in tree["cameras"]]
        return tree | {"cameras": cameras}

    @model_validator(mode="after")
    def _memory_where_it_works(self) -> Config:
        if self.select.memory is not None and self.uses_datagrams:
            raise ValueError(
                "select.memory: over WebRTC parts of a message may be lost; accepted there: empty, or an MQTT server"
            )
        return self

    @model_validator(mode="after")
    def _one_list_of_cameras(self) -> Config:
        names = [camera.name for camera in self.cameras]
        if len(set(names)) < len(names):
            raise ValueError(f"cameras: names differ; got {', '.join(names)}")
        if self.cameras and self.capture.source:
            raise ValueError(f"accepted: either cameras or a source; got cameras and {self.capture.source!r}")
        reserved = sum(camera.min_share for camera in self.cameras if camera.budget is None)
        if reserved > 1 + 1e-9:
            raise ValueError(f"cameras: the sum of min_share is at most 1; got {reserved:g}")
        return self

    @property
    def all_cameras(self) -> tuple[CameraConfig, ...]:
        """The cameras of a run: those listed, or the one source. Raises UsageError when there is none."""
        if self.cameras:
            return self.cameras
        if not self.capture.source:
            raise UsageError(f"no source given; accepted: {ACCEPTED_SOURCES}")
        shared = {key: getattr(self.capture, key) for key in CameraOptions.model_fields}
        return (CameraConfig.model_construct(name="camera", source=self.capture.source, **shared),)

    @property
    def uses_datagrams(self) -> bool:
        """Whether evidence travels as datagrams, each of which is to be useful alone."""
        return is_webrtc(self.ship.server)

    @property
    def zooms(self) -> bool:
        """Whether the edge looks at parts of frames where scenes are remembered."""
        closer = self.video.zoom
        if closer is None:
            closer = not {self.edge_model, self.server_model} & {*MODEL_PAIRS["demo"]}
        return closer and self.select.memory is None

    @property
    def edge_model(self) -> str:
        return self.edge.model or MODEL_PAIRS[self.models].edge

    @property
    def server_model(self) -> str:
        return self.server.model or MODEL_PAIRS[self.models].server
