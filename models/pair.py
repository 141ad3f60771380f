"""The two models of a run, loaded and checked against each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sagelink.models import loading, vit
from sagelink.models.loading import Model
from sagelink.pipeline.config import Config
from sagelink.pipeline.errors import UsageError


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair that fits: same classes, one unit grid."""

    edge: Model
    server: Model

    @classmethod
    def load(cls, config: Config) -> Pair:
        """Raises UsageError when a model cannot be had, or the two do not fit."""
        torch.set_num_threads(config.threads)
        edge = loading.load(config.edge, config.edge_model)
        vit.check_attention(edge.vit, edge.name)
        if config.ship.server:  # its weights are over there
            return cls(edge, loading.outline(config.server, config.server_model, edge.labels))
        server = loading.load(config.server, config.server_model)
        if len(edge.labels) != len(server.labels):
            raise UsageError(
                f"edge model {edge.name!r} has {len(edge.labels)} classes and server model {server.name!r} has "
                f"{len(server.labels)}; accepted: two models of the same classes"
            )
        if edge.labels != server.labels:
            raise UsageError(
                f"edge model {edge.name!r} and server model {server.name!r} name their classes differently"
            )
        return cls(edge, server)
