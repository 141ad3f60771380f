"""The configuration of the source and the sink for Frigate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.config.link import Topic
from sagelink.pipeline.config.section import Fraction, Section
from sagelink.pipeline.quantities import Duration

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


class FrigateConfig(Section):
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
