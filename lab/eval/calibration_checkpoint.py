"""Saves the finished curves of an interrupted calibration in a file beside its output, and loads them again.

The first line of the file is a digest of the samples and the server model. Curves of other samples or another model are
not loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from sagelink.lab.eval.frontier_measurement import write_frontier
from sagelink.lab.harness import Sample
from sagelink.models.loading import Model, weights_digest
from sagelink.pipeline.files.documents import parse_yaml, read_text
from sagelink.stages.frontier import CurveModel, FrontierModel


class CalibrationCheckpoint:
    def __init__(self, path: Path, samples: Sequence[Sample], server: Model) -> None:
        self.path = path
        inputs = hashlib.sha256(weights_digest(server).encode())
        for sample in samples:
            inputs.update(sample.picture.tobytes() + sample.order.tobytes() + sample.edge.tobytes())
            inputs.update(str(sample.truth).encode())
        self._note = f"incomplete: {inputs.hexdigest()}"

    def load(self) -> list[CurveModel]:
        """The saved curves; empty if there is no file, or if it is damaged or belongs to another calibration."""
        try:
            text = read_text(self.path)
            if text.startswith(f"# {self._note}\n"):
                return FrontierModel.model_validate(parse_yaml(text)).lines
        except (OSError, ValueError):
            pass
        return []

    def save(self, frontier: FrontierModel) -> None:
        write_frontier(frontier, self.path, self._note)

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
