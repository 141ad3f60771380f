"""Opens the models of a packed file for a run whose server is another process. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagelink.models.heads.fit import Backbone, check_fit
from sagelink.models.heads.further import NamedHead
from sagelink.models.heads.head import Head, read_head
from sagelink.models.packed.edge import PackedEdge, PackedSessions
from sagelink.models.packed.file import PackFile
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError

_ALSO_IN_THE_FILE = ("checkpoint", "labels", "calibration")


@dataclass(frozen=True, slots=True, eq=False)
class PackedServer:
    """The outline of a server model."""

    name: str
    grid: UnitGrid
    patch_embedding: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    can_compute: bool = False

    @property
    def is_outline(self) -> bool:
        """Whether there are no weights at all, not even a patch embedding."""
        return self.patch_embedding is None

    def embedding(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `ServerModel.embedding`."""
        assert self.patch_embedding is not None
        return self.patch_embedding


@dataclass(frozen=True, slots=True, eq=False)
class PackedPair:
    """`RunModels` of a packed file."""

    edge: PackedEdge
    server: PackedServer
    backbone: Backbone  # of the edge
    further: tuple[NamedHead, ...] = ()

    @classmethod
    def load(cls, config: Config, path: Path) -> PackedPair:
        """`path`: of the packed file. Raises UsageError where it does not fit the configuration."""
        if not config.ship.server:
            raise UsageError(
                f"packed {str(path)!r}: it holds no weights of the server model; accepted: ship.server (--server), the "
                "address of a `sagelink serve`"
            )
        pack = PackFile(path)
        edge, server = pack.card.edge, pack.card.server
        _check_settings(config, pack)
        head = None if config.head is None else read_head(config.head)
        backbone = Backbone(edge.model, edge.backbone, edge.width, has_class_token=True)
        if head is not None:
            check_fit(head.edge, backbone, "edge")
        reads = edge.reads if head is None else head.edge.card.reads
        sessions = PackedSessions(pack, config.edge, config.threads, reads)
        own = PackedEdge(edge.model, edge.grid.grid(), edge.labels, edge.importance, pack.classifier, sessions)
        outline = PackedServer(server.model, server.grid.grid(), pack.embedding)
        pair = cls(own if head is None else own.with_head(head), outline, backbone)
        return replace(pair, further=NamedHead.load_all(config.heads, head, pair.check_head, outline))

    def check_head(self, head: Head) -> None:
        """Raises UsageError if the head was taught on another edge model. The server checks its own side."""
        check_fit(head.edge, self.backbone, "edge")

    def edge_with_head(self, head: Head) -> PackedEdge:
        """The edge model with the classes of the head. Raises UsageError."""
        self.check_head(head)
        return self.edge.with_head(head)


def _check_settings(config: Config, pack: PackFile) -> None:
    """Raises UsageError where the configuration asks for other models than those in the file."""
    where, edge, server = f"packed models {str(pack.path)!r}", pack.card.edge, pack.card.server
    if (config.edge_model, config.server_model) != (edge.model, server.model):
        raise UsageError(
            f"{where} hold {edge.model} and {server.model}, but the configuration names {config.edge_model} and "
            f"{config.server_model}; accepted: edge.model={edge.model} and server.model={server.model}"
        )
    for role, side in (("edge", config.edge), ("server", config.server)):
        for key in _ALSO_IN_THE_FILE:
            if getattr(side, key) is not None:
                raise UsageError(f"{role}.{key} is set, but {where} hold the models; accepted: one of both")
    if config.select.importance != edge.importance:
        raise UsageError(
            f"select.importance is {config.select.importance}, but {where} compute {edge.importance}; accepted: "
            f"{edge.importance}, or pack again with --set select.importance={config.select.importance}"
        )
