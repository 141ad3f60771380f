"""The edge model of a packed file: runs in ONNX Runtime or OpenVINO, without PyTorch."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from sagelink.models.heads.head import Head, Reads
from sagelink.models.heads.linear_classifier import LinearClassifier
from sagelink.models.model_contract import EdgeScores, Importance
from sagelink.models.packed.file import PackFile, check_classifier, check_pictures, most_important
from sagelink.models.runtimes.compilers import COMPILERS, Precision, Session, UnusableError, compiled, version_of
from sagelink.models.runtimes.exported_edge import run_exported
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Pixels

log = logging.getLogger(__name__)

_LEAST_SAME_UNITS = 0.90  # as of `models.runtimes.choice`
_INSTALL = "pip install onnxruntime, or openvino"


class PackedSessions:
    """The compiled passes of a packed file, one for each set of features that classifiers read."""

    def __init__(self, pack: PackFile, config: ModelConfig, threads: int, reads: Reads) -> None:
        """Compiles the pass for `reads` in the runtime that `config` names, or in the first one that is installed and
        gives the answers of PyTorch. Raises UsageError."""
        self._pack = pack
        self._threads = threads
        self._sessions: dict[Reads, Session] = {}
        refused = []
        for name in _candidates(config):
            self.runtime = name
            try:
                self.precision = _precision(name, config)
                self.prepare(reads)
            except UnusableError as error:
                log.warning("model=%s runtime=%s event=not_used reason=%r", pack.card.edge.model, name, str(error))
                refused.append(f"{name}: {error}")
            else:
                log.info("role=edge model=%s runtime=%s precision=%s", pack.card.edge.model, name, self.precision)
                return
        raise UsageError(f"packed models {str(pack.path)!r} cannot run on this machine: {'; '.join(refused)}")

    def prepare(self, reads: Reads) -> None:
        """Compiles, if needed, the pass for classifiers that read these features, and compares it with PyTorch's
        answers. Raises UsageError where the file does not hold it, UnusableError where the runtime fails."""
        if reads in self._sessions:
            return
        session = compiled(self.runtime, self._pack.graph(reads), self.precision, self._threads)
        edge = self._pack.card.edge
        try:
            found = run_exported(session, check_pictures(edge.grid.image_size), check_classifier(reads, edge.width))
        except Exception as error:  # each runtime has its own kinds
            raise UnusableError(f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}") from error
        answers, units = self._pack.expected(reads)
        same_answers = found.logits.argmax(1).tolist() == answers
        same_units = np.mean(
            [np.isin(*rows).mean() for rows in zip(most_important(found.importance), units, strict=True)]
        )
        if self.precision == "fp32" and not (same_answers and same_units >= _LEAST_SAME_UNITS):
            raise UnusableError("it gives other answers than PyTorch")
        self._sessions[reads] = session

    def score(self, pictures: Pixels, classifier: LinearClassifier) -> EdgeScores:
        return run_exported(self._sessions[classifier.reads], pictures, classifier)


@dataclass(frozen=True, slots=True, eq=False)
class PackedEdge:
    """An edge model with its classes."""

    name: str
    grid: UnitGrid
    labels: tuple[str, ...]
    importance: Importance  # for which it was packed
    classifier: LinearClassifier
    sessions: PackedSessions
    head: Head | None = None

    def score(self, pictures: Pixels, importance: Importance) -> EdgeScores:
        """The edge pass over RGB uint8 (B, S, S, 3); `importance`: the one that was packed."""
        assert importance == self.importance
        return self.sessions.score(pictures, self.classifier)

    def with_head(self, head: Head) -> PackedEdge:
        """The model with the classes of the head, which fits its backbone. Raises UsageError."""
        classifier = LinearClassifier.of_side(head.answering(head.edge))
        try:
            self.sessions.prepare(classifier.reads)
        except UnusableError as error:
            raise UsageError(f"the head cannot be used in {self.sessions.runtime}: {error}") from None
        return replace(self, labels=head.classes, classifier=classifier, head=head)


def _candidates(config: ModelConfig) -> list[str]:
    """Names of the runtimes to try. Raises UsageError."""
    if config.device != "cpu":
        raise UsageError(f"edge.device is {config.device!r}: packed models compute on the CPU; accepted: cpu")
    if config.runtime == "torch":
        raise UsageError("edge.runtime: torch cannot run packed models; accepted: auto, openvino or onnxruntime")
    names = [*COMPILERS] if config.runtime == "auto" else [config.runtime]
    installed = [name for name in names if version_of(COMPILERS[name])]
    if not installed and config.runtime != "auto":
        raise UsageError(
            f"edge.runtime: the package {config.runtime} is not installed; accepted: pip install {config.runtime}, or "
            "edge.runtime=auto"
        )
    if not installed:
        raise UsageError(f"edge.runtime: no package is installed that runs packed models; accepted: {_INSTALL}")
    return installed


def _precision(name: str, config: ModelConfig) -> Precision:
    """`auto` is fp32: bf16 needs pictures to confirm it, and PyTorch. Raises UnusableError."""
    if config.precision != "bf16":
        return "fp32"
    if "bf16" not in COMPILERS[name].precisions():
        raise UnusableError("it cannot compute bf16 on this CPU; accepted: edge.precision=fp32 or auto")
    return "bf16"
