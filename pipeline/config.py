"""The configuration schema: one pydantic model per section, each field with its bounds and its description.

docs/configuration.md is generated from it. Unknown keys are errors.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.calendar_periods import Calendar, local_timezone
from sagelink.pipeline.console_config import DIGEST_MIN_BPS, ConsoleConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.event_config import EventsConfig
from sagelink.pipeline.pacing import PaceName
from sagelink.pipeline.quantities import Duration, FrameSize, Rate, Retention, Size
from sagelink.pipeline.quota import Quota
from sagelink.pipeline.urls import is_webrtc

ACCEPTED_SOURCES = (
    "a video file, a folder of images, a webcam (0, 1 ... or /dev/video0), an rtsp:// or http(s):// URL, "
    "webrtc: (a peer pushes video to this process), frigate:mqtt://host (events of Frigate), "
    "mqtt-snapshots:mqtt://host/topic (pictures in MQTT messages), or synthetic:N"
)


class PairDefaults(NamedTuple):
    """The names of the two models of a pair."""

    edge: str
    server: str


MODEL_PAIRS = {
    "deit": PairDefaults("deit_tiny_patch16_224.fb_in1k", "deit_base_patch16_224.fb_in1k"),
    "demo": PairDefaults("demo-edge", "demo-server"),
}

DEMO_LIMIT = (
    "the demo models only know 16 drawn classes; on pictures of a camera or a photograph their answers mean nothing"
)

MAX_FURTHER_HEADS = 8  # of a camera, besides the one that decides what is sent
_ICE_SERVER = re.compile(r"(stun:|turns?:)[^\s@/?:]+(:\d{1,5})?(\?transport=tcp)?")

Fraction = Annotated[float, Field(ge=0, le=1)]
Region = Annotated[
    tuple[Fraction, Fraction, Fraction, Fraction],
    Accepts("[left, top, right, bottom] as fractions from 0 to 1", "[0.25, 0, 1, 0.5]"),
]
Polygons = Annotated[
    tuple[Annotated[tuple[tuple[Fraction, Fraction], ...], Field(min_length=3)], ...],
    Accepts(
        "list of polygons, each a list of 3 or more corners [x, y] as fractions from 0 to 1",
        "[[[0, 0], [0.4, 0], [0, 0.3]]]",
    ),
]
CameraName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$"), Accepts("1 to 64 letters, digits, _ and -", "gate-north")
]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$"), Accepts("`cpu`, `cuda`, `cuda:N`, `mps`", "cuda:0")]
_FORBIDDEN = "without + # $ / and spaces"
Origin = Annotated[
    str,
    Field(pattern=r"^https?://[^/\s*?#@]+$"),
    Accepts("`http://host[:port]` or `https://host[:port]`", "https://site.example"),
]
TopicLevel = Annotated[
    str,
    Field(pattern=r"^[^+#/$\s][^+#/\s]*$"),
    Accepts(f"level of an MQTT topic, {_FORBIDDEN}", "gate-north"),
]
TopicLevelOrEmpty = Annotated[
    str,
    Field(pattern=r"^([^+#/$\s][^+#/\s]*)?$"),
    Accepts(f"level of an MQTT topic, {_FORBIDDEN}; or empty", "gate-north"),
]
Topic = Annotated[
    str,
    Field(pattern=r"^[^+#/$\s][^+#/\s]*(/[^+#/\s]+)*$"),
    Accepts("levels of an MQTT topic with / between them, without + # $ and spaces", "site/north"),
]
Names = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], Accepts("list of names", "[dog, car]")
]
ClassesByLabel = Annotated[
    dict[str, Annotated[tuple[str, ...], Field(min_length=1)]],
    Accepts("mapping of a label to a list of classes", "{dog: [rex, bella], car: [van, lorry]}"),
]
HeadsByLabel = Annotated[
    dict[str, Path],
    Field(max_length=15),
    Accepts("mapping of a label to a head file", "{dog: dogs.head, car: cars.head}"),
]
IceServers = Annotated[
    tuple[str, ...], Accepts("list of at most one STUN and one TURN address", "['stun:host:3478', 'turn:host:3478']")
]
Weights = Annotated[
    dict[float, float], Accepts("mapping of the fraction of units to a weight", "{0: 0, 0.5: 0.3, 1: 0.5}")
]


Heads = Annotated[
    dict[CameraName, Path], Accepts("mapping of a name to a head file", "{weather: weather.head, gate: gate.head}")
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class QuotaConfig(_Section):
    """At most so many bytes in each period. Also written as text: 500MB/month, 20MB/day or 5MB/24h."""

    name: str = Field(
        "", pattern=r"^[A-Za-z0-9_-]{0,64}$", description="Name in reports; empty: the period, such as day"
    )
    bytes: Size = Field(description="Bytes on the wire in a period, such as 500MB; 1 MB is 1000000 bytes")
    per: Literal["day", "week", "month"] | None = Field(None, description="Period of the calendar")
    every: Duration | None = Field(None, description="Length of a rolling window, such as 24h, instead of `per`")
    starts: int = Field(
        1,
        description="First day of the period: of the month (1 to 31; a shorter month takes its last day), or of the "
        "week (1 is Monday)",
    )
    timezone: str = Field("", description="Time zone of `per`, such as Europe/Berlin; empty: the one of this machine")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        size, slash, period = value.partition("/")
        if not slash:
            raise ValueError(f"a quota is written like 500MB/month, 20MB/day or 5MB/24h; got {value!r}")
        return {"bytes": size, ("per" if period in ("day", "week", "month") else "every"): period}

    @model_validator(mode="after")
    def _one_period(self) -> QuotaConfig:
        if (self.per is None) == (self.every is None):
            raise ValueError("accepted: either per: day, week or month, or every: a duration such as 24h")
        if self.every is not None and (self.starts != 1 or self.timezone):
            raise ValueError("starts and timezone go with per: a rolling window has no first day")
        try:
            self.quota()
        except UsageError as error:
            raise ValueError(str(error)) from None
        return self

    def quota(self) -> Quota:
        """The rule."""
        if self.every is not None:
            return Quota(self.name or f"every-{self.every:g}s", 8 * self.bytes, every_s=self.every)
        assert self.per is not None
        calendar = Calendar(self.per, self.starts, self.timezone or local_timezone())
        return Quota(self.name or self.per, 8 * self.bytes, calendar)


Quotas = Annotated[tuple[QuotaConfig, ...], Accepts("list of quotas", "[{bytes: 500MB, per: month, starts: 14}]")]


class CameraBudgetConfig(_Section):
    """The hard uplink budget: in every window of this length, at most uplink x window bits are sent."""

    uplink: Rate = Field(
        256_000.0, description="Maximum average rate over a window, such as 64kbit/s, 0.5Mbit/s, 8kB/s; or unlimited"
    )
    window: Duration = Field(1.0, description="Length of the rolling window, such as 1s or 500ms")
    quotas: Quotas = Field(
        (), max_length=16, description="Quotas, all hard at once; those of the site count all cameras"
    )

    @field_validator("quotas")
    @classmethod
    def _names_differ(cls, quotas: tuple[QuotaConfig, ...]) -> tuple[QuotaConfig, ...]:
        names = [quota.quota().name for quota in quotas]
        if len(set(names)) < len(names):
            raise ValueError(f"names must differ; got {', '.join(names)}")
        return quotas


class BudgetConfig(CameraBudgetConfig):
    """The hard uplink budget of the site, or of all processes that share a ledger."""

    pace: PaceName | None = Field(
        None,
        description="How the budget is spread over time. as-needed: each message gets what is left; even: quotas are "
        "released hour by hour; adaptive: a bit has a price, which rises while spending runs ahead, and a message is "
        "sent if its expected gain is worth its price. Empty: adaptive with quotas, otherwise as-needed",
    )
    counts: Literal["up", "both"] = Field(
        "up", description="Bits that the quotas count: up, or both: replies from the server too"
    )
    ledger: Path | None = Field(
        None,
        description="File that keeps what was spent through restarts; processes that name the same file share the "
        "budget. Quotas need one; empty, with a window above 10s: a file in the user's state folder",
    )
    weight: float = Field(
        1.0, gt=0, le=1e6, description="Weight of this process for dividing the rate of a shared ledger"
    )
    min_share: Fraction = Field(0.0, description="Fraction of the rate of a shared ledger reserved for this process")
    interface: str = Field(
        "",
        pattern=r"^[^/\s]{0,64}$",
        description="Network interface of the uplink, such as wwan0: what other programs send over it counts against "
        "the quotas; empty: off",
    )


class CameraOptions(_Section):
    """Settings that each camera may override."""

    fps: float | None = Field(
        None, gt=0, le=1000, description="Frames per second to process, by their timestamps; empty: all frames"
    )
    roi: Region | None = Field(
        None,
        description="Region of interest: left, top, right, bottom as fractions of the picture, such as [0.25, 0, 1, "
        "0.5]; the rest of the picture is cut off",
    )
    mask: Polygons = Field(
        (),
        description="Polygons that are painted grey before any processing: corners [x, y] as fractions of the whole "
        "picture, such as [[[0, 0], [0.4, 0], [0, 0.3]]]",
    )
    backend: Literal["opencv", "pyav"] = Field(
        "opencv",
        description="Library that reads cameras: opencv decodes faster, pyav reports failures in more detail; http, "
        "tcp and rtmp streams are always read with pyav",
    )
    rtsp_transport: Literal["auto", "tcp", "udp"] = Field(
        "auto", description="How RTSP streams travel. auto: TCP, or UDP where the camera refuses TCP"
    )
    size: FrameSize | None = Field(None, description="Picture size to request from a webcam, such as 1280x720")
    camera_fps: float | None = Field(None, gt=0, le=1000, description="Frames per second to request from a webcam")
    mjpg: bool = Field(False, description="Request Motion JPEG from a webcam: more frames per second at large sizes")
    image_fps: float = Field(1.0, gt=0, le=1000, description="Frames per second of a folder of images")
    open_timeout: Duration = Field(10.0, description="Maximum time for a camera to open")
    read_timeout: Duration = Field(10.0, description="A camera that sends no frame for this long is reconnected")
    stall_after: Duration = Field(2.0, description="A camera that sends no frame for this long is reported as stalled")
    heads: tuple[str, ...] | None = Field(
        None, description="Names of the further heads in `heads` that answer for this camera, up to 8; empty: all"
    )
    token_file: Path | None = Field(
        None,
        description="File with the token that a peer must send to a webrtc: source; SAGELINK_PUSH_TOKEN overrides it",
    )
    push_origins: tuple[Origin, ...] = Field(
        (), description="Web sites whose pages may push to a webrtc: source, such as [https://site.example]"
    )

    @field_validator("roi")
    @classmethod
    def _has_area(cls, roi: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if roi is not None and not (roi[0] < roi[2] and roi[1] < roi[3]):
            raise ValueError(f"left must be less than right, and top less than bottom; got {list(roi)}")
        return roi


class CaptureConfig(CameraOptions):
    """Where frames come from. The keys from `fps` to `token_file` are also the defaults for each of `cameras`."""

    source: str = Field(
        "",
        description="File, folder of images, webcam index or device, URL, webrtc:, frigate:, mqtt-snapshots:, or "
        "synthetic:N",
    )
    realtime: bool = Field(
        False, description="Play a file at its original speed, as a live source: the budget uses the monotonic clock"
    )
    resize: Literal["squash", "crop"] = Field(
        "squash",
        description="How a frame becomes the square input of the models: squash scales the whole frame, crop takes its "
        "central square",
    )
    duration: Duration | None = Field(
        None, description="End the run after this time; a replay counts the time of the recording"
    )
    max_frames: int | None = Field(None, ge=1, description="Stop each camera after this many frames")


class CameraConfig(CameraOptions):
    """One of several cameras. A key that it leaves out takes the value from `capture`."""

    name: CameraName = Field(description="Name in the results: letters, digits, _ and -")
    source: str = Field(min_length=1, description="Same values as `capture.source`")
    weight: float = Field(
        1.0, gt=0, le=1e6, description="Weight for dividing the shared budget while several cameras need bits"
    )
    min_share: Fraction = Field(0.0, description="Fraction of the shared budget that is reserved for this camera")
    budget: CameraBudgetConfig | None = Field(
        None, description="A separate rate for this camera; it then uses nothing of the shared one, but of its quotas"
    )


class ModelConfig(_Section):
    """The model of one side (edge or server), and what computes it."""

    model: str = Field("", description="timm name, demo-edge or demo-server; empty: the one of the pair in `models`")
    checkpoint: Path | None = Field(None, description="safetensors file with the model's weights")
    labels: Path | None = Field(None, description="Text file with one class name per line")
    device: Device = Field("cpu", description="PyTorch device")
    runtime: Literal["auto", "torch", "openvino", "onnxruntime"] = Field(
        "auto",
        description="What computes the model. torch: PyTorch; openvino, onnxruntime: these packages, on the CPU; auto: "
        "the fastest that is installed and gives the answers of PyTorch, measured once per model and machine",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Numbers that the runtime computes with. bf16 needs openvino and a CPU with bf16 instructions; "
        "auto: bf16 if the pictures in `calibration` confirm it, otherwise fp32",
    )
    calibration: Path | None = Field(
        None, description="Folder with 64 or more pictures of your cameras: `auto` compares runtimes on them"
    )


class GateConfig(_Section):
    """Which frames are sent to the server."""

    policy: str = Field("min_entropy", description="Rule: min_entropy, margin, always or never")
    threshold: float | None = Field(
        None,
        ge=0,
        description="min_entropy: send if -log2 of the highest probability is above this number of bits; margin: send "
        "if the highest probability exceeds the second one by less than this; empty: the default of the "
        "policy",
    )


class VideoConfig(_Section):
    """Scene tracking: combines the answers to the frames of a scene, and spends bits only if they add information."""

    policy: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Track scenes. auto: for cameras and video files, not for folders of images and synthetic: sources;"
        " never: each frame is answered independently",
    )
    cuts: bool = Field(
        True, description="Detect scene cuts and start a new scene there; false: the first scene never ends"
    )
    zoom: bool | None = Field(
        None,
        description="Score a zoomed crop of the important part in two of three frames, and send that crop; empty: yes, "
        "unless a model is from the demo pair, which recognises objects at one size only, or a head is given, whose "
        "classes may depend on the whole view. Always off with "
        "`select.memory`, which needs the same view in every frame",
    )
    still_interval: Duration | None = Field(
        None,
        description="A frame whose picture has not changed beyond the noise of the sensor takes the edge answer of the "
        "last scored frame; a change is scored at once, and a still frame after this time, such as 2s; empty: "
        "every frame is scored. For cameras whose scenes are tracked",
    )
    average_edge: bool = Field(True, description="Average the edge answers over the frames of a scene")
    hold_answers: bool = Field(
        True, description="Server answers also count for later frames of the same scene; their weight decays with age"
    )
    value_gate: bool = Field(
        True,
        description="Send no message with almost no expected gain; needs `fuse.rule: weighted` and no `fuse.weights`, "
        "because the gain is computed from the weights of the frontier",
    )


class SelectConfig(_Section):
    """Which units (patches) of a frame are sent."""

    selector: str = Field("coverage", description="Selection method: coverage, sage, topk, mmr, fps, uniform or random")
    importance: Literal["last", "rollout", "gradient"] = Field(
        "gradient",
        description="Importance of a unit. last: CLS attention of the last layer; rollout: of the last six layers; "
        "gradient: attention of the last two layers, weighted by its gradient for the edge answer",
    )
    units: int | None = Field(None, ge=1, description="Maximum number of units per frame; empty: all units of the grid")
    min_units: int = Field(
        16, ge=1, description="Send no message with fewer units than this, or than `units` if that is smaller"
    )
    seed: int = Field(0, ge=0, description="Seed of the random selector")
    memory: Duration | None = Field(
        None,
        description="Delta coding: a unit that the server remembers stays valid for this time while the picture there "
        "does not change, and is not sent again; empty: off, every message is complete",
    )


class EncodeConfig(_Section):
    """How evidence (the message with the selected units) is coded."""

    codec: str = Field(
        "auto",
        description="auto: the operating point of the frontier with the highest expected gain; or one of avif, webp, "
        "avif-frame, webp-frame, jpeg-frame, raw-zstd, token-zstd",
    )
    frontier: Path | None = Field(
        None,
        description="File of measured operating points (`sagelink calibrate`); empty: the one for the server model",
    )
    slack: float = Field(
        0.02, ge=0, lt=1, description="Agreement with the full-frame answer that may be lost to save bytes"
    )
    zoom: bool = Field(
        True,
        description="Without scene tracking: send a zoomed crop of the most important part if, by the frontier, its "
        "expected gain is above that of the whole frame; false: always send the view that the edge scored",
    )
    max_message: Size = Field(256_000, description="Maximum size of a message, even if the budget allows more")


class ShipConfig(_Section):
    """How evidence is sent to the server."""

    server: str = Field(
        "",
        description="Address: of the broker, mqtt://, mqtts://, ws:// or wss://host:port; or of the server, "
        "webrtc+http://host:port or webrtc+https://host:port; empty: the server model runs in this process",
    )
    edge_answer: bool = Field(
        False,
        description="Messages also hold the edge's own answer (4 bytes more), which servers compare with theirs",
    )
    in_flight: int = Field(2, ge=1, le=64, description="Maximum number of messages without a reply")
    deadline: Duration = Field(
        1.0, description="Live runs: a reply that takes longer is ignored, and the edge answer becomes the verdict"
    )


class MqttConfig(_Section):
    """The connection to an MQTT broker. Its password comes from SAGELINK_MQTT_PASSWORD or a file."""

    prefix: Topic = Field("sagelink", description="First levels of each topic")
    node: TopicLevelOrEmpty = Field("", description="Topic level of this machine; empty: its host name")
    protocol: Literal["5", "3.1.1"] = Field(
        "5", description="MQTT version; 5 falls back to 3.1.1 if the broker does not support 5"
    )
    username: str = Field("", description="User name; SAGELINK_MQTT_USERNAME overrides it")
    password_file: Path | None = Field(None, description="File with the password; SAGELINK_MQTT_PASSWORD overrides it")
    ca: Path | None = Field(None, description="PEM file of trusted certificate authorities; empty: those of the system")
    certificate: Path | None = Field(None, description="PEM file of the client certificate")
    key: Path | None = Field(None, description="PEM file of the private key of the client certificate")
    mac_key_file: Path | None = Field(
        None,
        description="File with a secret of at least 32 bytes, the same at the edges and servers: evidence and replies "
        "carry a MAC (4 bytes more), and messages without a right one are refused; empty: no MAC",
    )
    keepalive: Duration = Field(
        30.0, description="Interval between keep-alives on an idle connection; each costs 1072 bits"
    )


class WebRtcConfig(_Section):
    """The WebRTC connection between edge and server. Its token comes from SAGELINK_WEBRTC_TOKEN or a file."""

    token_file: Path | None = Field(
        None,
        description="File with the token that an edge sends and a server requires; SAGELINK_WEBRTC_TOKEN overrides it",
    )
    node: TopicLevelOrEmpty = Field("", description="Name of this machine at the server; empty: its host name")
    ice_servers: IceServers = Field(
        (),
        description="At most one STUN and one TURN server: [stun:host:port], [turn:host:port], "
        "['turn:host:port?transport=tcp'], [turns:host:port]",
    )
    turn_username: str = Field("", description="User name at the TURN server")
    turn_password_file: Path | None = Field(
        None, description="File with the password for the TURN server; SAGELINK_TURN_PASSWORD overrides it"
    )
    ca: Path | None = Field(
        None,
        description="Edge: PEM file of trusted certificate authorities for webrtc+https; empty: those of the system",
    )
    certificate: Path | None = Field(None, description="Server: PEM file of the certificate for webrtc+https")
    key: Path | None = Field(None, description="Server: PEM file of the certificate's private key")
    part_wait: Duration = Field(
        0.12, description="Server: classify an incomplete message when no further part arrives for this time"
    )
    max_peers: int = Field(256, ge=1, le=4096, description="Server: maximum number of connected peers")
    max_viewers: int = Field(
        8,
        ge=0,
        le=256,
        description="Server: maximum number of browsers that send their camera; 0: the camera page is off",
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
    """Settings of `sagelink serve`: where it listens, and how cameras share its model."""

    listen: str = Field(
        "",
        description="Broker to connect to: mqtt://, mqtts://, ws:// or wss://host:port; or the nodes of a NATS "
        "cluster: nats://host:port,host:port or nats+tls://...; or own address for edges to connect to: "
        "webrtc+http://host:port or webrtc+https://host:port",
    )
    embedded_broker: str = Field(
        "",
        description="Run a broker in this process instead, on host:port; other machines can reach it only with a "
        "password",
    )
    group: TopicLevelOrEmpty = Field(
        "servers",
        description="Servers of the same group divide the frames between them; each group gets all frames. Empty: this "
        "server takes all frames with a plain subscription, and a second one without a group stands by",
    )
    http: str = Field("", description="host:port for /healthz, /readyz and /metrics; empty: off")
    console: str = Field(
        "", description="With WebRTC: host:port of the [console](console.md) of this server's cameras; empty: off"
    )
    workers: int = Field(1, ge=1, le=64, description="Batches that are classified at the same time, one thread each")
    max_wait: Duration = Field(0.002, description="Maximum time that a frame waits for others to fill a batch")
    max_batch_units: int = Field(
        4096, ge=1, le=262_144, description="Maximum number of units in a batch, including padding"
    )
    memory: Size | None = Field(
        256_000_000, description="Memory for units of cameras that use delta coding (`select.memory`); empty: none"
    )
    heads: Path | None = Field(
        None,
        description="Folder in which heads (own classes) of cameras are kept, so that they need not be sent again "
        "after a restart; empty: memory only",
    )
    head_memory: Size = Field(
        64_000_000,
        description="Memory for heads: one of 10 classes for DeiT-Base needs 40 to 70 kB; beyond it, a head that no "
        "frame has used for a minute leaves, or a further head is refused",
    )
    queue: int = Field(
        4, ge=1, le=64, description="Maximum number of waiting frames per camera; a further one displaces the oldest"
    )
    waiting: Size = Field(
        256_000_000,
        description="Memory for messages that wait for the model; the messages of one node may use an eighth of it",
    )


class FuseConfig(_Section):
    """How the edge answer and the server answer are combined."""

    rule: Literal["weighted", "server"] = Field(
        "weighted",
        description="weighted: weighted sum of log-probabilities; server: the server answer replaces the edge answer",
    )
    weights: Weights | None = Field(
        None,
        description="Weight of the server's log-probabilities, relative to 1 for the edge, by the fraction of units "
        "received, such as {0: 0, 0.5: 0.3, 1: 0.5}; empty: the measured weight of the operating point in "
        "the frontier",
    )

    @field_validator("weights")
    @classmethod
    def _grows(cls, weights: dict[float, float] | None) -> dict[float, float] | None:
        if weights is None:
            return None
        shares = sorted(weights)
        values = [weights[share] for share in shares]
        if not shares or shares[0] < 0 or shares[-1] > 1 or values[0] < 0 or values != sorted(values):
            raise ValueError(
                "accepted: fractions in 0..1, and weights of 0 or more that never fall as the fraction grows"
            )
        return {share: weights[share] for share in shares}


class OutputConfig(_Section):
    """Files that a run writes."""

    out: Path | None = Field(None, description="Folder for results.jsonl and summary.json")
    annotate: Path | None = Field(
        None, description="Path of an .mp4 file: the frames with the sent units and the verdicts drawn in"
    )
    record: Path | None = Field(None, description="Folder for a recording that `sagelink replay` can run again")
    pictures: int = Field(
        12,
        ge=0,
        le=200,
        description="With `out`: number of small pictures for the report of the frames with the highest cost, and as "
        "many of the least certain frames; 0: none",
    )

    rotate: Retention | None = Field(
        None,
        description="Begin a new results.jsonl, events.jsonl and part of a recording at this age or size, and compress "
        "the old lines; empty: one file each",
    )
    keep: Retention | None = Field(
        None,
        description="Delete closed files and earlier runs (`runs/`) of a folder that are older than this, and the "
        "oldest beyond this size in all. A full disk then never ends a run: the oldest files leave, then nothing is "
        "written until there is room; empty: keep all",
    )

    @field_validator("annotate")
    @classmethod
    def _mp4(cls, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() != ".mp4":
            raise ValueError(f"{str(path)!r} is not an .mp4 file")
        return path


class DashboardConfig(_Section):
    """The web page that shows a run, with metrics and health checks."""

    address: str | None = Field(None, description="host:port of the page, such as 127.0.0.1:8600; empty: off")
    token: SecretStr | None = Field(
        None,
        description="Token for viewers; required if other machines can reach the address. Prefer the environment "
        "variable SAGELINK_DASHBOARD_TOKEN",
    )
    pictures: bool = Field(
        True, description="Show live pictures; without them the page is also updated less often, and costs little"
    )
    charge: bool = Field(
        False,
        description="Charge what viewers on other machines receive to the uplink budget, if the page is seen over the "
        "uplink; pages and pictures then wait for room",
    )


class LabelsConfig(_Section):
    """Pictures that people label on the dashboard, and what a head is taught with there."""

    folder: Path | None = Field(
        None, description="Folder for the labelled pictures, one folder a class; empty: `labels` in `output.out`"
    )
    pictures: tuple[Path, ...] = Field(
        (), description="Further folders of labelled pictures, such as those that `head` was taught with"
    )


class HomeAssistantConfig(_Section):
    """Reports to Home Assistant over MQTT, with the user name and the certificates of `mqtt`."""

    broker: str = Field("", description="Broker of Home Assistant, mqtt://host:port, on the local network; empty: off")
    discovery: Topic = Field("homeassistant", description="Discovery prefix of Home Assistant")
    every: Duration = Field(5.0, description="Time between two reports")
    pictures: bool = Field(
        False,
        description="Also publish the newest frame of each camera, at most one every `every`, and the picture of each "
        "event (`events.pictures`), as images of the camera",
    )


class FrigateConfig(_Section):
    """Second opinions on the events of Frigate: the source `frigate:mqtt://host` and the sub-labels that it gets."""

    url: str = Field(
        "", description="HTTP API of Frigate, http(s)://host:port; empty: no pictures by HTTP, and no sub-labels"
    )
    token_file: Path | None = Field(
        None, description="File with the bearer token for the HTTP API; SAGELINK_FRIGATE_TOKEN overrides it"
    )
    ca: Path | None = Field(
        None, description="PEM file of trusted certificate authorities for https; empty: those of the system"
    )
    username: str = Field("", description="User name at the broker of Frigate; empty: the one of `mqtt`")
    password_file: Path | None = Field(
        None, description="File with the password for this user name; SAGELINK_FRIGATE_MQTT_PASSWORD overrides it"
    )
    prefix: Topic = Field("frigate", description="Frigate's `mqtt.topic_prefix`")
    pictures: Literal["http", "mqtt"] = Field(
        "http",
        description="Where pictures come from. http: the snapshot of the event from the HTTP API; mqtt: the snapshot "
        "topic of camera and label, which does not name the event",
    )
    crop: bool = Field(
        True,
        description="http: get the part of the picture around the object; false: the whole picture, which `roi` and "
        "`mask` of a camera need",
    )
    cameras: Names = Field((), description="Frigate's cameras whose events are used; empty: all")
    labels: Names = Field((), description="Frigate's labels whose events are used; empty: all")
    zones: Names = Field((), description="Use only events of objects that entered one of these zones; empty: all")
    private: Names = Field(
        ("person", "face", "license_plate"),
        description="Labels whose pictures never leave the site: the edge model answers alone, and nothing of them is "
        "given to the link",
    )
    heads: HeadsByLabel = Field(
        {},
        description="Head file for a label: its events get these classes, at the edge and the server; a label that is "
        "not named has those of `head`, or of the models",
    )
    classes: ClassesByLabel = Field(
        {}, description="Classes that are possible for a label; a label that is not named may be any class of its head"
    )
    frames: int = Field(
        2, ge=1, le=10, description="Maximum number of pictures of an event; a further one must have a higher score"
    )
    threshold: Fraction = Field(0.6, description="Write no sub-label with a lower probability")
    max_wait: Duration = Field(
        60.0, description="An event that has waited this long for bits goes on with the bits that are left"
    )
    queue: Path | None = Field(
        None,
        description="File of the sub-labels that Frigate has not confirmed yet; empty: `sagelink/` in the user's state "
        "folder (XDG_STATE_HOME)",
    )


Cameras = Annotated[
    tuple[CameraConfig, ...],
    Accepts("list of cameras, each with a name and a source", "[{name: gate, source: 'rtsp://host/stream'}]"),
]


class Config(_Section):
    """The whole configuration."""

    models: Literal["deit", "demo"] = Field("deit", description="Pair of models for the sides whose `model` is empty")
    threads: int = Field(
        max(1, (os.cpu_count() or 2) // 2), ge=1, le=256, description="CPU threads per forward pass of a model"
    )
    head: Path | None = Field(
        None,
        description="Head file of `sagelink teach`: your own classes instead of the model's; a server in another "
        "process gets it over the link, once",
    )
    heads: Heads = Field(
        {},
        description="Further head files by name: each answers about the same features and evidence, in `heads` of the "
        "results. Without `head`, the first of them takes its place",
    )
    head_folder: Path | None = Field(
        None,
        description="Folder in which the heads are kept that cameras get while a run goes on (`sagelink head push`, "
        "dashboard): the next run begins with them; empty: they hold until the run ends",
    )
    capture: CaptureConfig = CaptureConfig()
    cameras: Cameras = Field((), description="Several cameras, instead of `capture.source`")
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
    events: EventsConfig = EventsConfig()
    dashboard: DashboardConfig = DashboardConfig()
    console: ConsoleConfig = ConsoleConfig()
    labels: LabelsConfig = LabelsConfig()
    home_assistant: HomeAssistantConfig = HomeAssistantConfig()
    frigate: FrigateConfig = FrigateConfig()

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, tree: Any) -> Any:
        """A key that a camera leaves out takes its value from `capture`."""
        if not isinstance(tree, dict) or not isinstance(tree.get("cameras"), list | tuple):
            return tree
        capture = tree.get("capture")
        given = capture if isinstance(capture, dict) else {}
        shared = {key: given[key] for key in CameraOptions.model_fields if key in given}
        cameras = [shared | camera if isinstance(camera, dict) else camera for camera in tree["cameras"]]
        return tree | {"cameras": cameras}

    @model_validator(mode="before")
    @classmethod
    def _first_head(cls, tree: Any) -> Any:
        """Without `head`, the first of `heads` decides: it selects evidence, and the server has it too."""
        heads = tree.get("heads") if isinstance(tree, dict) else None
        if not isinstance(heads, dict) or not heads or tree.get("head") is not None:
            return tree
        (_, first), *further = heads.items()
        return tree | {"head": first, "heads": dict(further)}

    @model_validator(mode="after")
    def _heads_of_cameras(self) -> Config:
        for camera in (self.capture, *self.cameras):
            if unknown := [name for name in camera.heads or () if name not in self.heads]:
                raise ValueError(
                    f"heads of a camera: unknown {unknown[0]!r}; accepted: {', '.join(self.heads) or 'none'}, the "
                    "further heads in `heads`"
                )
            if (count := len(self.heads if camera.heads is None else camera.heads)) > MAX_FURTHER_HEADS:
                raise ValueError(
                    f"heads of a camera: {count} besides the first; accepted: up to {MAX_FURTHER_HEADS}; the `heads` "
                    "of a camera can choose some"
                )
        return self

    @model_validator(mode="after")
    def _memory_where_it_works(self) -> Config:
        if self.select.memory is not None and self.uses_datagrams:
            raise ValueError(
                "select.memory: WebRTC may lose parts of a message; accepted with WebRTC: empty; or use an MQTT server"
            )
        return self

    @model_validator(mode="after")
    def _pace_of_something(self) -> Config:
        pace, budgets = self.budget.pace, [self.budget, *(camera.budget for camera in self.cameras if camera.budget)]
        if pace == "even" and not self.has_quotas:
            raise ValueError(
                "budget.pace even releases quotas hour by hour; accepted with it: budget.quotas, such as 500MB/month; "
                "without quotas: adaptive, as-needed, or a shorter window"
            )
        if pace != "adaptive":
            return self
        if not self.has_quotas and all(budget.uplink is None for budget in budgets):
            raise ValueError(
                "budget.pace adaptive needs a limit; accepted with it: budget.quotas, such as 500MB/month, or a rate"
            )
        if not self.weighs_messages:
            raise ValueError(
                "budget.pace adaptive prices messages by the weights of the frontier; accepted with it: fuse.rule "
                "weighted, and no fuse.weights"
            )
        return self

    @model_validator(mode="after")
    def _one_list_of_cameras(self) -> Config:
        names = [camera.name for camera in self.cameras]
        if len(set(names)) < len(names):
            raise ValueError(f"cameras: names must differ; got {', '.join(names)}")
        if self.cameras and self.capture.source:
            raise ValueError(f"accepted: either cameras or a source; got cameras and {self.capture.source!r}")
        reserved = sum(camera.min_share for camera in self.cameras if camera.budget is None)
        if reserved > 1 + 1e-9:
            raise ValueError(f"cameras: the sum of min_share must be at most 1; got {reserved:g}")
        return self

    @property
    def has_quotas(self) -> bool:
        return any(budget.quotas for budget in (self.budget, *(c.budget for c in self.cameras if c.budget)))

    @property
    def weighs_messages(self) -> bool:
        """Whether the expected gain of a message follows from the weights of the frontier."""
        return self.fuse.rule == "weighted" and self.fuse.weights is None

    @property
    def pace(self) -> PaceName:
        """How the budget is spread over time."""
        if self.budget.pace is not None:
            return self.budget.pace
        return "adaptive" if self.has_quotas and self.weighs_messages else "as-needed"

    @property
    def all_cameras(self) -> tuple[CameraConfig, ...]:
        """The cameras of a run: those in `cameras`, or the one source. Raises UsageError if there is none."""
        if self.cameras:
            return self.cameras
        if not self.capture.source:
            raise UsageError(f"no source given; accepted: {ACCEPTED_SOURCES}")
        shared = {key: getattr(self.capture, key) for key in CameraOptions.model_fields}
        return (CameraConfig.model_construct(name="camera", source=self.capture.source, **shared),)

    @property
    def sends_digest(self) -> bool:
        """Whether the cameras of a live run send digests for a console."""
        if not self.ship.server or self.uses_datagrams:
            return False
        rate_bps = self.budget.uplink
        affordable = rate_bps is None or rate_bps >= DIGEST_MIN_BPS
        return affordable if self.console.digest is None else self.console.digest

    @property
    def uses_datagrams(self) -> bool:
        """Whether evidence is sent as datagrams, each of which must be useful without the others."""
        return is_webrtc(self.ship.server)

    @property
    def zooms(self) -> bool:
        """Whether the edge zooms into parts of frames when it tracks scenes."""
        zoom = self.video.zoom
        if zoom is None:
            zoom = self.head is None and not {self.edge_model, self.server_model} & {*MODEL_PAIRS["demo"]}
        return zoom and self.select.memory is None

    @property
    def edge_model(self) -> str:
        return self.edge.model or MODEL_PAIRS[self.models].edge

    @property
    def server_model(self) -> str:
        return self.server.model or MODEL_PAIRS[self.models].server
