"""What is compared when a runtime is chosen: the edge pass, and the server model on selected units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch

from sagelink.models import vit
from sagelink.models.heads.readout import logits_of
from sagelink.models.loading import Model
from sagelink.models.model_contract import Importance
from sagelink.models.runtimes.block_export import block_export_name
from sagelink.models.runtimes.compiled_blocks import CompiledBlocks
from sagelink.models.runtimes.compiled_edge import CompiledEdge
from sagelink.models.runtimes.compilers import Precision
from sagelink.models.runtimes.edge_export import edge_export_name
from sagelink.pipeline.types import Pixels

Role = Literal["edge", "server"]


@dataclass(frozen=True, slots=True)
class TrialAnswers:
    """The answers to a picture, and at the edge the third of the units with the greatest importance."""

    answers: tuple[int, ...]
    units: frozenset[int] = frozenset()


class Trial(Protocol):
    role: Role  # section of the configuration
    threads: int

    @property
    def model(self) -> Model:
        """Computed by PyTorch."""
        ...

    @property
    def name(self) -> str:
        """Differs between models whose exports differ."""
        ...

    def computed(self, runtime: str, precision: Precision) -> Model:
        """The model in another runtime. Raises ExportError or UnusableError."""
        ...

    def run(self, model: Model, picture: Pixels) -> TrialAnswers:
        """One picture (S, S, 3)."""
        ...


class EdgeTrial:
    role: Role = "edge"

    def __init__(self, model: Model, importance: Importance, threads: int) -> None:
        self.model = model
        self._importance: Importance = importance
        self.threads = threads

    @property
    def name(self) -> str:
        return edge_export_name(self.model, self._importance)

    def computed(self, runtime: str, precision: Precision) -> Model:
        score = CompiledEdge(runtime, precision, self.threads, self.model)
        score.prepare(self.model.vit, self._importance)
        return replace(self.model, computed_score=score)

    def run(self, model: Model, picture: Pixels) -> TrialAnswers:
        found = model.score(picture[None], self._importance)
        best = found.importance[0].argsort()[-max(1, model.grid.units // 3) :]
        return TrialAnswers((int(found.logits.argmax()),), frozenset(best.tolist()))


class ServerTrial:
    """The answer to a third of the units, and to all."""

    role: Role = "server"

    def __init__(self, model: Model, threads: int) -> None:
        self.model = model
        self.threads = threads

    @property
    def name(self) -> str:
        networks = [self.model.vit, *([self.model.partial.vit] if self.model.partial else [])]
        return "-".join(map(block_export_name, networks))

    def computed(self, runtime: str, precision: Precision) -> Model:
        return replace(self.model, computed_blocks=CompiledBlocks(runtime, precision, self.threads, self.model))

    @torch.no_grad()
    def run(self, model: Model, picture: Pixels) -> TrialAnswers:
        patches = vit.to_units(model.normalise(picture[None]), model.grid.patch_size)
        answers = []
        for count in (max(1, model.grid.units // 3), model.grid.units):
            units = torch.from_numpy(np.linspace(0, model.grid.units - 1, count).astype(np.int64))[None]
            sequence = vit.sequence_of_units(model.vit, patches[:, units[0]], units)
            answers.append(int(logits_of(model.vit, model.final_tokens(model.vit, sequence, None)).argmax()))
        return TrialAnswers(tuple(answers))
