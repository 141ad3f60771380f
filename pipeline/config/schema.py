"""The configuration schema: one pydantic model per section, each field with its bounds and its description.

docs/configuration.md is generated from it. Unknown keys are errors.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.budget.pacing import PaceName
from sagelink.pipeline.config.budget import BudgetConfig
from sagelink.pipeline.config.camera import ACCEPTED_SOURCES, CameraConfig, CameraOptions, Cameras, CaptureConfig
from sagelink.pipeline.config.console import DIGEST_MIN_BPS, ConsoleConfig
from sagelink.pipeline.config.events import EventsConfig
from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.pipeline.config.link import MqttConfig, ServeConfig, ShipConfig, WebRtcConfig
from sagelink.pipeline.config.models import MODEL_PAIRS, ModelConfig
from sagelink.pipeline.config.output import DashboardConfig, HomeAssistantConfig, LabelsConfig, OutputConfig
from sagelink.pipeline.config.section import CameraName, Section
from sagelink.pipeline.config.stages import EncodeConfig, FuseConfig, GateConfig, SelectConfig, VideoConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.urls import is_webrtc

MAX_FURTHER_HEADS = 8  # of a camera, besides the one that decides what is sent
Heads = Annotated[
    dict[CameraName, Path],
    Accepts(
        "mapping of a name (1 to 64 letters, digits, _ and -) to a head file",
        "{weather: weather.head, gate: gate.head}",
    ),
]


class Config(Section):
    """The whole configuration."""

    models: Literal["deit", "demo"] = Field("deit", description="Pair of models for the sides whose `model` is empty")
    packed: Path | None = Field(
        None,
        description="models.pack of a folder that `sagelink pack` wrote: both models for a machine without PyTorch, "
        "whose server is another process",
    )
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
    trust_file: Path | None = Field(
        None,
        description="File in which a live run keeps how far each camera's edge answers can be believed, for the next "
        "run; empty: trust.json in the user's state folder",
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
    def _pace_of_something(self) -> Config:
        if self.budget.pace is not None and (refusal := self.pace_refusal(self.budget.pace)):
            raise ValueError(refusal)
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

    def pace_refusal(self, pace: PaceName) -> str | None:
        """Why a run with this configuration cannot have this pace; None if it can."""
        budgets = [self.budget, *(camera.budget for camera in self.cameras if camera.budget)]
        if pace == "even" and not self.has_quotas:
            return (
                "budget.pace even releases quotas hour by hour; accepted with it: budget.quotas, such as 500MB/month; "
                "without quotas: adaptive, as-needed, or a shorter window"
            )
        if pace == "adaptive" and not self.has_quotas and all(budget.uplink is None for budget in budgets):
            return "budget.pace adaptive needs a limit; accepted with it: budget.quotas, such as 500MB/month, or a rate"
        if pace == "adaptive" and not self.weighs_messages:
            return (
                "budget.pace adaptive prices messages by the weights of the frontier; accepted with it: fuse.rule "
                "weighted, and no fuse.weights"
            )
        return None

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
        return zoom

    @property
    def edge_model(self) -> str:
        return self.edge.model or MODEL_PAIRS[self.models].edge

    @property
    def server_model(self) -> str:
        return self.server.model or MODEL_PAIRS[self.models].server
