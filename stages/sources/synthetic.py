"""The `synthetic:` picture source: drawn scenes with known true classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sagelink.pipeline.errors import UsageError
from sagelink.stages.sources.contract import SourceFrame
from sagelink.stages.sources.world import CLASSES, render, sample_scene


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    frames: int = Field(gt=0, le=10**9)
    size: str = Field("256x256", pattern=r"^\d{2,4}x\d{2,4}$")
    fps: float = Field(5.0, gt=0, le=1000)
    seed: int = Field(0, ge=0)
    hold: int = Field(5, gt=0)


class SyntheticSource:
    """`synthetic:FRAMES[,size=WxH][,fps=F][,seed=S][,hold=H]`: a new scene every `hold` frames, moving in between."""

    skipped = 0
    labels = CLASSES
    video = False

    def __init__(
        self, frames: int, width: int = 256, height: int = 256, fps: float = 5.0, seed: int = 0, hold: int = 5
    ) -> None:
        self.length = frames
        self.name = f"synthetic:{frames}"
        self._size = (width, height)
        self._fps = fps
        self._seed = seed
        self._hold = hold

    @classmethod
    def parse(cls, text: str) -> SyntheticSource:
        """Raises UsageError naming the option."""
        count, *pairs = text.removeprefix("synthetic:").split(",")
        try:
            options = _Options.model_validate({"frames": count} | dict(pair.split("=", 1) for pair in pairs))
        except (ValidationError, ValueError) as error:
            where = (
                [".".join(map(str, e["loc"])) for e in error.errors()] if isinstance(error, ValidationError) else pairs
            )
            raise UsageError(
                f"source {text!r}: cannot read {', '.join(where)}; accepted: synthetic:FRAMES[,size=WxH][,fps=F]"
                f"[,seed=S][,hold=H], such as synthetic:120,size=640x480,fps=10,seed=3"
            ) from None
        width, height = map(int, options.size.split("x"))
        return cls(options.frames, width, height, options.fps, options.seed, options.hold)

    def __iter__(self) -> Iterator[SourceFrame]:
        for index in range(self.length):
            number, step = divmod(index, self._hold)
            scene = sample_scene(np.random.default_rng([self._seed, number]))
            noise = np.random.default_rng([self._seed, number, step])
            pixels = render(scene, *self._size, step / self._fps, noise)
            yield SourceFrame(pixels, index / self._fps, truth=scene.class_id)

    def close(self) -> None:
        pass
