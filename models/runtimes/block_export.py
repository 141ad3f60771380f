"""Exports the blocks of a network, from embedded tokens to final tokens, for any number of pictures and tokens.

Inputs: `sequence` float32 (B, T, D), with prefix tokens and position embeddings; `mask` float32 (B, 1, 1, T), which is
added to the attention scores: 0 for a token, `MASKED` for padding. Output: `tokens` float32 (B, T, D) after the final
norm.
"""

from __future__ import annotations

import logging

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sagelink.models.runtimes.export_cache import cached_export, export_name, to_onnx

log = logging.getLogger(__name__)

MASKED = -1e9  # its exponential is 0 in each precision
_FORMAT = "blocks 1"  # another name exports all models again
_EXAMPLE = 2, 5  # pictures, tokens
INPUTS, OUTPUTS = ("sequence", "mask"), ("tokens",)


class _BlockGraph(nn.Module):
    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self._network = network

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        sequence = self._network.norm_pre(sequence)
        for block in self._network.blocks:
            sequence = block(sequence, attn_mask=mask)
        tokens: Tensor = self._network.norm(sequence)
        return tokens


def block_export_name(network: VisionTransformer) -> str:
    """The name of the file: 32 hexadecimal digits of a hash."""
    return export_name(network, _FORMAT)


def block_export(network: VisionTransformer) -> bytes:
    """The ONNX model of the blocks, from the cache folder or exported now. Raises ExportError."""
    return cached_export(block_export_name(network), lambda: _export(network))


def _export(network: VisionTransformer) -> bytes:
    log.info("event=export part=blocks")
    pictures, tokens = _EXAMPLE
    given = (torch.zeros(pictures, tokens, network.embed_dim), torch.zeros(pictures, 1, 1, tokens))
    batch, length = "pictures", "tokens"
    dynamic = {"sequence": {0: batch, 1: length}, "mask": {0: batch, 3: length}, "tokens": {0: batch, 1: length}}
    return to_onnx(_BlockGraph(network), given, INPUTS, OUTPUTS, dynamic)
