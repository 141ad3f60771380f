"""Reads final tokens into class logits: the classifier of a network whose classes were taught (`models.head`).

A network has either its own classifier (timm's `forward_head`) or a `LinearReadout` as `network.head`. The functions
here accept both, so all callers work with either. Features are taken after the final norm:

- `token`: the class token.
- `mean`: the mean of the present units.
- `token+mean`: both, concatenated.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

Reads = Literal["token", "mean", "token+mean"]
Number = TypeVar("Number", np.float32, np.float64)


class LinearReadout(nn.Module):
    """A linear classifier on features of the final tokens."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, reads: Reads) -> None:
        """`weight`: (C, D), or (C, 2 D) for `token+mean`. `bias`: (C,)."""
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.reads: Reads = reads

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)

    @property
    def unit_weight(self) -> Tensor:
        """(C, D): the weights with which one unit's own token contributes to the logits."""
        if self.reads != "token+mean":
            return self.weight
        token, mean = self.weight.chunk(2, dim=1)
        return token + mean


def features_of(network: VisionTransformer, tokens: Tensor, reads: Reads, present: Tensor | None = None) -> Tensor:
    """Features (B, F) of final tokens (B, P + K, D).

    `present`: (B, K) bool, False for padding; padding does not enter the mean.
    """
    parts = []
    if reads != "mean":
        parts.append(tokens[:, 0])
    if reads != "token":
        units = tokens[:, network.num_prefix_tokens :]
        if present is None:
            parts.append(units.mean(1))
        else:
            shares = present.to(units.dtype) / present.sum(1, keepdim=True).clamp_min(1)
            parts.append((units * shares[..., None]).sum(1))
    features: Tensor = torch.cat([network.fc_norm(part) for part in parts], dim=1)
    return features


def read_features(network: VisionTransformer, tokens: Tensor) -> Tensor | None:
    """All that a head can read of final tokens (B, P + N, D): class token and mean of the units, (B, 2 D).

    None for a network without a taught classifier.
    """
    return features_of(network, tokens, "token+mean") if isinstance(network.head, LinearReadout) else None


def part_of(features: NDArray[Number], reads: Reads) -> NDArray[Number]:
    """(R, F) of (R, 2 D), the class token followed by the mean of the units."""
    half = features.shape[1] // 2
    return {"token": features[:, :half], "mean": features[:, half:], "token+mean": features}[reads]


def logits_of(network: VisionTransformer, tokens: Tensor, present: Tensor | None = None) -> Tensor:
    """Class logits (B, C) of final tokens; arguments as in `features_of`. timm's classifier ignores `present`."""
    head = network.head
    if isinstance(head, LinearReadout):
        return head(features_of(network, tokens, head.reads, present))  # type: ignore[no-any-return]
    logits: Tensor = network.forward_head(tokens)
    return logits


def readout_row(network: VisionTransformer, tokens: int) -> Tensor:
    """(1, T): the share of each final token in what the classifier reads; the start of relevance propagation."""
    row = torch.zeros(1, tokens)
    head, prefix = network.head, network.num_prefix_tokens
    reads = head.reads if isinstance(head, LinearReadout) else "token"
    if reads != "mean":
        row[0, 0] = 1.0
    if reads != "token":
        row[0, prefix:] = 1.0 / (tokens - prefix)
    return row / row.sum()


def unit_weight(network: VisionTransformer) -> Tensor:
    """(C, D): the weights with which one unit's own token, after `fc_norm`, contributes to the logits."""
    head = network.head
    weight: Tensor = head.unit_weight if isinstance(head, LinearReadout) else head.weight
    return weight


def can_pad(network: VisionTransformer) -> bool:
    """Whether padding can be kept out of the logits: the classifier reads only the class token, or present units."""
    if isinstance(network.head, LinearReadout):
        return True
    return network.attn_pool is None and network.global_pool == "token"
