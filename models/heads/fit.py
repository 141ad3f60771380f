"""Checks that a head was taught on the backbone that a model has."""

from __future__ import annotations

from dataclasses import dataclass

from sagelink.models.heads.head import HeadSide
from sagelink.pipeline.errors import UsageError


@dataclass(frozen=True, slots=True)
class Backbone:
    """What a head must know of the model without its classifier."""

    model: str  # name
    digest: str  # of the weights: 16 hexadecimal digits
    width: int  # of a token
    has_class_token: bool


def check_fit(side: HeadSide, backbone: Backbone, role: str) -> None:
    """Raises UsageError unless this side of a head was taught on the backbone. `role`: edge or server."""
    if side.card.backbone != backbone.digest:
        raise UsageError(
            f"the head was taught on {role} model {side.card.model!r} with backbone {side.card.backbone}; this "
            f"{role} model {backbone.model!r} has backbone {backbone.digest}; accepted: the same weights, or teach "
            "again with these"
        )
    width = backbone.width * (2 if side.card.reads == "token+mean" else 1)
    if side.weight.shape[1] != width or (side.card.reads != "mean" and not backbone.has_class_token):
        raise UsageError(
            f"the head reads {side.weight.shape[1]} features ({side.card.reads}) of {role} model {backbone.model!r}, "
            f"which has {width}; teach again with this model"
        )
