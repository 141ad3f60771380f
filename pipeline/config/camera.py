"""The configuration of cameras: where frames come from, and how they are read and cut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.config.budget import CameraBudgetConfig
from sagelink.pipeline.config.section import CameraName, Fraction, Section
from sagelink.pipeline.quantities import Duration, FrameSize

ACCEPTED_SOURCES = (
    "a video file, a folder of images, a webcam (0, 1 ... or /dev/video0), an rtsp:// or http(s):// URL, "
    "webrtc: (a peer pushes video to this process), frigate:mqtt://host (events of Frigate), "
    "mqtt-snapshots:mqtt://host/topic (pictures in MQTT messages), or synthetic:N"
)
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
Origin = Annotated[
    str,
    Field(pattern=r"^https?://[^/\s*?#@]+$"),
    Accepts("`http://host[:port]` or `https://host[:port]`", "https://site.example"),
]


class CameraOptions(Section):
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


Cameras = Annotated[
    tuple[CameraConfig, ...],
    Accepts("list of cameras, each with a name and a source", "[{name: gate, source: 'rtsp://host/stream'}]"),
]
