"""`UnitGrid`: the input picture of a model, and its division into units."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnitGrid:
    """The square input picture of a model, divided into units."""

    image_size: int  # pixels
    patch_size: int  # pixels
    interpolation: str
    crop_pct: float  # fraction of the central square on which the model was evaluated

    @property
    def side(self) -> int:
        return self.image_size // self.patch_size

    @property
    def units(self) -> int:
        return self.side**2
