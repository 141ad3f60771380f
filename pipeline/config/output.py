"""The configuration of what a run writes and shows: files, dashboard, labels, Home Assistant."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from sagelink.pipeline.config.link import Topic
from sagelink.pipeline.config.section import Section
from sagelink.pipeline.quantities import Duration, Retention


class OutputConfig(Section):
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
        description="Begin a new results.jsonl, events.jsonl, frigate.jsonl and part of a recording at this age or "
        "size, and compress the old lines; empty: one file each",
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


class DashboardConfig(Section):
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


class LabelsConfig(Section):
    """Pictures that people label on the dashboard, and what a head is taught with there."""

    folder: Path | None = Field(
        None,
        description="Folder for the labelled pictures, one folder a class; empty: `labels` in `output.out`. Those for "
        "a further head go beside it, into `labels-NAME`",
    )
    pictures: tuple[Path, ...] = Field(
        (), description="Further folders of labelled pictures, such as those that `head` was taught with"
    )
    head_pictures: dict[str, tuple[Path, ...]] = Field(
        {}, description="The same for the further heads in `heads`, by the name of the head"
    )


class HomeAssistantConfig(Section):
    """Reports to Home Assistant over MQTT, with the user name and the certificates of `mqtt`."""

    broker: str = Field("", description="Broker of Home Assistant, mqtt://host:port, on the local network; empty: off")
    discovery: Topic = Field("homeassistant", description="Discovery prefix of Home Assistant")
    every: Duration = Field(5.0, description="Time between two reports")
    pictures: bool = Field(
        False,
        description="Also publish the newest frame of each camera, at most one every `every`, and the picture of each "
        "event (`events.pictures`), as images of the camera",
    )
