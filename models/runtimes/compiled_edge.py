"""Runs the exported edge pass of a network in a compiled runtime: the same results as `vit.score`, in less time."""

from __future__ import annotations

import logging
from dataclasses import replace

from timm.models.vision_transformer import VisionTransformer

from sagelink.models import vit
from sagelink.models.heads.head import Reads
from sagelink.models.heads.readout import linear_reads
from sagelink.models.loading import Model
from sagelink.models.model_contract import EdgeScores, Importance
from sagelink.models.runtimes.compilers import Precision, Session, UnusableError, compiled
from sagelink.models.runtimes.edge_export import classifier_of, edge_export
from sagelink.models.runtimes.export_cache import ExportError
from sagelink.models.runtimes.exported_edge import run_exported
from sagelink.pipeline.types import Pixels

log = logging.getLogger(__name__)


class CompiledEdge:
    """The edge pass of one backbone.

    A kind of importance, and of classifier, is compiled when it is first used.
    """

    def __init__(self, runtime: str, precision: Precision, threads: int, backbone: Model) -> None:
        self.runtime = runtime
        self.precision: Precision = precision
        self._threads = threads
        self._backbone = backbone
        self._sessions: dict[tuple[Importance, Reads | None], Session | None] = {}

    def __call__(self, network: VisionTransformer, pictures: Pixels, importance: Importance) -> EdgeScores:
        """As `vit.score`. `network`: the backbone with any classifier. `pictures`: RGB uint8 (B, S, S, 3).

        A classifier that the exported graph cannot take is computed by PyTorch; the log says so once.
        """
        run = self._session(network, importance)
        if run is None:
            return vit.score(network, self._backbone.normalise(pictures), importance).as_arrays()
        return run_exported(run, pictures, classifier_of(network))

    def take_classifier(self, network: VisionTransformer) -> None:
        """Compiles, if needed, what the next call with this classifier needs: here it delays no frame."""
        for importance in {importance for importance, _ in self._sessions}:
            self._session(network, importance)

    def prepare(self, network: VisionTransformer, importance: Importance) -> None:
        """Compiles the pass for a kind of importance and of classifier. Raises ExportError or UnusableError."""
        content = edge_export(replace(self._backbone, vit=network), importance)
        session = compiled(self.runtime, content, self.precision, self._threads)
        self._sessions[importance, linear_reads(network)] = session

    def _session(self, network: VisionTransformer, importance: Importance) -> Session | None:
        key = importance, linear_reads(network)
        if key not in self._sessions:
            try:
                self.prepare(network, importance)
            except (ExportError, UnusableError) as error:
                log.warning(
                    "model=%s runtime=%s event=not_used reason=%r", self._backbone.name, self.runtime, str(error)
                )
                self._sessions[key] = None
        return self._sessions[key]
