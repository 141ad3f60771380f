"""Runs the exported blocks of the server model in a compiled runtime: the same results as `vit.final_tokens`."""

from __future__ import annotations

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sagelink.models import vit
from sagelink.models.loading import Model
from sagelink.models.runtimes.block_export import INPUTS, MASKED, block_export
from sagelink.models.runtimes.compilers import Precision, Session, compiled


class CompiledBlocks:
    """The blocks of a server model, and those of its second weights. Thread-safe."""

    def __init__(self, runtime: str, precision: Precision, threads: int, model: Model) -> None:
        """Raises ExportError or UnusableError."""
        self.runtime = runtime
        self.precision: Precision = precision
        # By the identity of the blocks: networks with other classifiers share them. The reference keeps them alive.
        self._sessions: dict[int, tuple[nn.Module, Session]] = {}
        for network in (model.vit, *([model.partial.vit] if model.partial else [])):
            session = compiled(runtime, block_export(network), precision, threads)
            self._sessions[id(network.blocks)] = network.blocks, session

    def __call__(self, network: VisionTransformer, sequence: Tensor, present: Tensor | None) -> Tensor:
        """As `vit.final_tokens`. PyTorch computes a network with other blocks."""
        found = self._sessions.get(id(network.blocks))
        if found is None:
            return vit.final_tokens(network, sequence, present)
        mask = np.zeros((len(sequence), 1, 1, sequence.shape[1]), np.float32)
        if present is not None:
            mask[:, 0, 0] = np.where(F.pad(present, (network.num_prefix_tokens, 0), value=True).numpy(), 0, MASKED)
        (tokens,) = found[1](dict(zip(INPUTS, (sequence.numpy(), mask), strict=True)))
        return torch.from_numpy(tokens)
