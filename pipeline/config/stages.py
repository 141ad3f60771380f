"""The configuration of what happens to a frame: gate, scenes, selection, coding and fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from sagelink.pipeline.accepted import Accepts
from sagelink.pipeline.config.section import Section
from sagelink.pipeline.quantities import Duration, Size

Weights = Annotated[
    dict[float, float], Accepts("mapping of the fraction of units to a weight", "{0: 0, 0.5: 0.3, 1: 0.5}")
]


class GateConfig(Section):
    """Which frames are sent to the server."""

    policy: str = Field("min_entropy", description="Rule: min_entropy, margin, always or never")
    threshold: float | None = Field(
        None,
        ge=0,
        description="min_entropy: send if -log2 of the highest probability is above this number of bits; margin: send "
        "if the highest probability exceeds the second one by less than this; empty: the default of the "
        "policy",
    )


class VideoConfig(Section):
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
        "classes may depend on the whole view",
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


class SelectConfig(Section):
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


class EncodeConfig(Section):
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


class FuseConfig(Section):
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
