"""What a calibration that was cut off has measured, in a file beside the one that it was to write."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from sagelink.lab.frontier_measurement import write_frontier
from sagelink.lab.harness import Sample
from sagelink.models.loading import Model, weights_digest
from sagelink.stages.frontier import CurveModel, FrontierModel


class CalibrationCheckpoint:
    """Complete lines of the same pictures, selections and models; of others none are found."""

    def __init__(self, path: Path, samples: Sequence[Sample], server: Model) -> None:
        self.path = path
        seen = hashlib.sha256(weights_digest(server).encode())
        for sample in samples:
            seen.update(sample.picture.tobytes() + sample.order.tobytes() + sample.edge.tobytes())
            seen.update(str(sample.truth).encode())
        self._note = f"incomplete: {seen.hexdigest()}"

    def lines(self) -> list[CurveModel]:
        try:
            text = self.path.read_text(encoding="utf-8")
            if text.startswith(f"# {self._note}\n"):
                return FrontierModel.model_validate(yaml.safe_load(text)).lines
        except (OSError, ValueError, yaml.YAMLError):  # none, or damaged: then it is measured again
            pass
        return []

    def put(self, frontier: FrontierModel) -> None:
        write_frontier(frontier, self.path, self._note)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
