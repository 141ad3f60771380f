"""Loads the edge model and the server model of a run, and checks that they fit together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from sagelink.models import loading, vit
from sagelink.models.heads.apply import apply_head, backbone_digest, check_side, edge_with_head
from sagelink.models.heads.further import NamedHead
from sagelink.models.heads.head import Head, read_head
from sagelink.models.loading import Model
from sagelink.models.runtimes.choice import with_runtime
from sagelink.models.runtimes.trials import EdgeTrial, ServerTrial
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError


@dataclass(frozen=True)
class Pair:
    """An edge model and a server model with the same classes."""

    edge: Model
    server: Model
    further: tuple[NamedHead, ...] = ()  # heads that answer besides the one of the pair

    @classmethod
    def load_backbones(cls, config: Config) -> Pair:
        """Both models with whatever classes they have: a head replaces the classifiers. Raises UsageError."""
        edge = _load_edge(config)
        return cls(edge, loading.load(config.server, config.server_model))

    @classmethod
    def load_outline(cls, config: Config) -> Pair:
        """The edge model with its own classes, and the server model without weights: it is in another process. Raises
        UsageError."""
        edge = _load_edge(config)
        return cls(edge, loading.outline(config.server, config.server_model, edge.labels))

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
            pair = cls.load_backbones(config)._with_further(config, head)
            return cls(*apply_head(head, pair.edge, pair.server), pair.further)
        if config.ship.server:  # it checks its side of the heads
            pair = cls.load_outline(config)
            edge = pair.edge if head is None else pair.edge_with_head(head)
            return replace(pair, edge=edge)._with_further(config, head)
        edge, server = (pair := cls.load_backbones(config)).edge, pair.server
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

    def _with_further(self, config: Config, first: Head | None) -> Pair:
        further = NamedHead.load_all(config.heads, first, self.check_head, self.server)
        return replace(self, further=further)

    def check_head(self, head: Head) -> None:
        """Raises UsageError if the head was taught on other backbones, as far as they are here."""
        check_side(head.edge, self.edge, "edge", self._edge_backbone)
        if self.server.can_compute:
            check_side(head.server, self.server, "server", self._server_backbone)

    def edge_with_head(self, head: Head) -> Model:
        """The edge model with the classes of the head. Raises UsageError."""
        return edge_with_head(head, self.edge, self._edge_backbone)

    @cached_property
    def _edge_backbone(self) -> str:
        return backbone_digest(self.edge)

    @cached_property
    def _server_backbone(self) -> str:
        return backbone_digest(self.server)


def _load_edge(config: Config) -> Model:
    torch.set_num_threads(config.threads)
    edge = loading.load(config.edge, config.edge_model)
    vit.check_attention(edge.vit, edge.name)
    return edge
