"""Loads the edge model and the server model of a run, and checks that they fit together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from sagelink.models import loading, vit
from sagelink.models.apply_head import apply_head, edge_with_head
from sagelink.models.further_heads import NamedHead
from sagelink.models.head import read_head
from sagelink.models.loading import Model
from sagelink.models.runtime_trials import EdgeTrial, ServerTrial
from sagelink.models.runtimes import with_runtime
from sagelink.pipeline.config import Config
from sagelink.pipeline.errors import UsageError


@dataclass(frozen=True, slots=True)
class Pair:
    """An edge model and a server model with the same classes."""

    edge: Model
    server: Model
    further: tuple[NamedHead, ...] = ()  # heads that answer besides the one of the pair

    @classmethod
    def load_backbones(cls, config: Config) -> Pair:
        """Both models with whatever classes they have: a head replaces the classifiers. Raises UsageError."""
        torch.set_num_threads(config.threads)
        edge = loading.load(config.edge, config.edge_model)
        vit.check_attention(edge.vit, edge.name)
        return cls(edge, loading.load(config.server, config.server_model))

    @classmethod
    def load(cls, config: Config) -> Pair:
        """Raises UsageError if a model cannot be loaded, or if the two do not fit together.

        With `head` set, both get the classes of the head file, and the heads in `heads` are loaded too. With
        `ship.server` set, the server model is an outline without weights. The models get the runtimes of the
        configuration.
        """
        pair = cls._load(config)
        edge = with_runtime(EdgeTrial(pair.edge, config.select.importance, config.threads), config.edge)
        server = pair.server
        if server.can_compute:
            server = with_runtime(ServerTrial(server, config.threads), config.server)
        return replace(pair, edge=edge, server=server)

    @classmethod
    def _load(cls, config: Config) -> Pair:
        head = None if config.head is None else read_head(config.head)
        if head is not None and not config.ship.server:
            backbones = cls.load_backbones(config)
            further = NamedHead.load_all(config.heads, head, backbones.edge, backbones.server)
            return cls(*apply_head(head, backbones.edge, backbones.server), further)
        torch.set_num_threads(config.threads)
        edge = loading.load(config.edge, config.edge_model)
        vit.check_attention(edge.vit, edge.name)
        if config.ship.server:  # the weights are at the server, which checks its side of the heads
            taught = edge if head is None else edge_with_head(head, edge)
            server = loading.outline(config.server, config.server_model, taught.labels)
            return cls(taught, server, NamedHead.load_all(config.heads, head, edge, server))
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
