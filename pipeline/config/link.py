"""The configuration of the link between edge and server, at both ends: MQTT, NATS and WebRTC."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.config.section import Section
from sagelink.pipeline.quantities import Duration, Size

_ICE_SERVER = re.compile(r"(stun:|turns?:)[^\s@/?:]+(:\d{1,5})?(\?transport=tcp)?")
_FORBIDDEN = "without + # $ / and spaces"
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
IceServers = Annotated[
    tuple[str, ...], Accepts("list of at most one STUN and one TURN address", "['stun:host:3478', 'turn:host:3478']")
]


class ShipConfig(Section):
    """How evidence is sent to the server."""

    server: str = Field(
        "",
        description="Address: of the broker, mqtt://, mqtts://, ws:// or wss://host:port, or of the brokers of a "
        "cluster, mqtt://host:port,host:port, of which one is used; or of the server, webrtc+http://host:port or "
        "webrtc+https://host:port; empty: the server model runs in this process",
    )
    edge_answer: bool = Field(
        False,
        description="Messages also hold the edge's own answer (4 bytes more), which servers compare with theirs",
    )
    in_flight: int = Field(2, ge=1, le=64, description="Maximum number of messages without a reply")
    deadline: Duration = Field(
        1.0, description="Live runs: a reply that takes longer is ignored, and the edge answer becomes the verdict"
    )


class MqttConfig(Section):
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
    evidence_qos: int = Field(
        1,
        ge=0,
        le=1,
        description="Edge: QoS of evidence. 1: the broker confirms each message. 0: the server's reply does, or "
        "`ship.deadline` ends the wait; for a cluster of NATS, which stores messages of QoS 1 on its nodes",
    )


class WebRtcConfig(Section):
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


class ServeConfig(Section):
    """Settings of `sagelink serve`: where it listens, and how cameras share its model."""

    listen: str = Field(
        "",
        description="Broker to connect to: mqtt://, mqtts://, ws:// or wss://host:port, or the brokers of a cluster, "
        "mqtt://host:port,host:port; or the nodes of a NATS cluster: nats://host:port,host:port or nats+tls://...; or "
        "own address for edges to connect to: "
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
