"""Opens the two models of a run: in PyTorch, or from a file of `sagelink pack`, which needs no PyTorch."""

from __future__ import annotations

from typing import Protocol

from sagelink.models.heads.further import NamedHead
from sagelink.models.heads.head import Head
from sagelink.models.model_contract import EdgeModel, ServerModel
from sagelink.pipeline.config.schema import Config


class RunModels(Protocol):
    """An edge model and a server model with the same classes."""

    @property
    def edge(self) -> EdgeModel: ...

    @property
    def server(self) -> ServerModel: ...

    @property
    def further(self) -> tuple[NamedHead, ...]:
        """Heads that answer besides the one of the edge model."""
        ...

    def check_head(self, head: Head) -> None:
        """Raises UsageError if the head was taught on other backbones, as far as they are known here."""
        ...

    def edge_with_head(self, head: Head) -> EdgeModel:
        """The edge model with the classes of the head. Raises UsageError."""
        ...


def load_models(config: Config) -> RunModels:
    """The models that the configuration names. Raises UsageError."""
    if config.packed is not None:
        from sagelink.models.packed.pair import PackedPair

        return PackedPair.load(config, config.packed)
    from sagelink.models.pair import Pair

    return Pair.load(config)
