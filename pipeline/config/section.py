"""The base of all sections of the configuration, and the types that several of them use."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sagelink.pipeline.accepted import Accepts

Fraction = Annotated[float, Field(ge=0, le=1)]
CameraName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$"), Accepts("1 to 64 letters, digits, _ and -", "gate-north")
]


class Section(BaseModel):
    """A section of the configuration: unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
