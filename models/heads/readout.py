"""Reads final tokens into class logits: the classifier of a network whose classes were taught (`models.heads.head`).

A network has either its own classifier (timm's `forward_head`) or a `LinearReadout` as `network.head`. The functions
here accept both, so all callers work with either. Features are taken after the final norm:

- `token`: the class token.
- `mean`: the mean of the present units.
- `token+mean`: both, concatenated.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sagelink.models.heads.head import Reads
from sagelink.models.pull_back import pull_back


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
    prefix, reads = network.num_prefix_tokens, linear_reads(network) or "token"
    if reads != "mean":
        row[0, 0] = 1.0
    if reads != "token":
        row[0, prefix:] = 1.0 / (tokens - prefix)
    return row / row.sum()


def linear_reads(network: VisionTransformer) -> Reads | None:
    """The features that a linear classifier reads; None for a classifier of another form."""
    head = network.head
    if isinstance(head, LinearReadout):
        return head.reads
    if network.attn_pool is not None or not isinstance(head, nn.Linear):
        return None
    if network.global_pool == "avg" and not getattr(network, "pool_include_prefix", False):
        return "mean"
    return "token" if network.global_pool == "token" else None


def answer_gradient(network: VisionTransformer, tokens: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the highest logit at final tokens (B, T, D), for those that the classifier reads.

    Returns their indices (B, R) int64, and the gradient (B, R, D).
    """
    reads, count = linear_reads(network), tokens.shape[1]
    rows = torch.arange(1 if reads == "token" else count, device=tokens.device).expand(len(tokens), -1)
    if reads is None:
        with torch.enable_grad():
            start = tokens.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(logits_of(network, start).amax(1).sum(), start)
        return rows, gradient
    at_features = network.head.weight[logits.argmax(1)].split(tokens.shape[2], dim=1)  # each (B, D)
    norm, prefix = network.fc_norm, network.num_prefix_tokens
    parts = []
    if reads != "mean":
        parts.append(F.pad(pull_back(norm, tokens[:, 0], at_features[0])[:, None], (0, 0, 0, rows.shape[1] - 1)))
    if reads != "token":
        at_mean = pull_back(norm, tokens[:, prefix:].mean(1), at_features[-1]) / (count - prefix)
        parts.append(F.pad(at_mean[:, None].expand(-1, count - prefix, -1), (0, 0, prefix, 0)))
    return rows, torch.stack(parts).sum(0)


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
