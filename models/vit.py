"""Scores the units of a picture with a Vision Transformer (edge), and classifies selected units (server).

Works with any timm `VisionTransformer` with a plain patch embedding: with or without class token, register tokens, and
prefix in the position embedding. Forward hooks on the normalised queries and keys read the attention, so the model runs
unchanged with timm's fused attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from sagelink.models.heads.head import Floats
from sagelink.models.heads.readout import answer_gradient, logits_of, read_features, readout_row, unit_weight
from sagelink.models.model_contract import EdgeScores, Importance
from sagelink.models.pull_back import pull_back
from sagelink.models.relevance import relevance, run_block, take
from sagelink.models.runtimes.compilers import Precision
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Pixels

ROLLOUT_LAYERS = 6
GRADIENT_LAYERS = 2
GRADIENT_TOKENS = 32  # that relevance follows through the block before the last
CANDIDATES = 10  # most likely classes of the edge that contrast compares
SMOOTHING = 0.7  # standard deviation in units


@dataclass(frozen=True, slots=True)
class Features:
    """Result of one edge forward pass over B pictures of N units."""

    logits: Tensor  # (B, C)
    importance: Tensor  # (B, N)
    embeddings: Tensor  # (B, N, D) unit tokens after the final norm
    class_token: Tensor  # (B, D) after the final norm
    read: Tensor | None = None  # (B, 2 D) what heads can read (`models.heads.readout`); None without a head

    def as_arrays(self) -> EdgeScores:
        """The same values as NumPy arrays."""
        read = None if self.read is None else _array(self.read)
        values = map(_array, (self.logits, self.importance, self.embeddings, self.class_token))
        logits, importance, embeddings, class_token = values
        return EdgeScores(logits, importance, embeddings, class_token, read)


def _array(values: Tensor) -> Floats:
    return values.float().cpu().numpy()


class ComputedScore(Protocol):
    """Another way to compute `score` than PyTorch."""

    runtime: str
    precision: Precision

    def __call__(self, network: VisionTransformer, pictures: Pixels, importance: Importance) -> EdgeScores:
        """As `score`. `network`: the backbone with any classifier. `pictures`: RGB uint8 (B, S, S, 3)."""
        ...

    def take_classifier(self, network: VisionTransformer) -> None:
        """Prepares calls with another classifier. May take seconds."""
        ...


class ComputedBlocks(Protocol):
    """Another way to compute `final_tokens` than PyTorch."""

    runtime: str
    precision: Precision

    def __call__(self, network: VisionTransformer, sequence: Tensor, present: Tensor | None) -> Tensor: ...


def check(model: torch.nn.Module, name: str) -> VisionTransformer:
    """Returns `model` if the functions below can use it. Raises UsageError otherwise."""
    if not isinstance(model, VisionTransformer):
        raise UsageError(f"model {name!r} is a {type(model).__name__}; accepted: timm VisionTransformer models")
    embed = model.patch_embed
    if type(embed) is not PatchEmbed or embed.patch_size[0] != embed.patch_size[1]:
        raise UsageError(f"model {name!r} has no plain embedding of square patches")
    if model.pos_embed is None or model.dynamic_img_size or embed.grid_size[0] != embed.grid_size[1]:
        raise UsageError(f"model {name!r} has no fixed square unit grid with position embeddings")
    return model


def check_classes(model: VisionTransformer, name: str) -> None:
    """Raises UsageError unless the model tells two or more classes apart."""
    if model.num_classes < 2:
        raise UsageError(
            f"model {name!r} has {model.num_classes or 'no'} classes; accepted: a model, or a checkpoint with "
            f"head.weight and head.bias, that classifies two or more"
        )


def check_attention(model: VisionTransformer, name: str) -> None:
    """Raises UsageError if `score` cannot read CLS attention from the model."""
    if model.cls_token is None:
        raise UsageError(f"edge model {name!r} has no class token, so no CLS attention to score units with")
    for block in model.blocks:
        if type(block) is not Block or not isinstance(block.attn, Attention):
            raise UsageError(f"edge model {name!r} has blocks of another form than timm's Block with Attention")


@contextmanager
def _queries_and_keys(blocks: list[Block]) -> Iterator[list[dict[str, Tensor]]]:
    """Collects q and k, each (B, heads, T, d), of the blocks during the forward passes in the context."""
    collected: list[dict[str, Tensor]] = [{} for _ in blocks]
    handles = []
    for block, store in zip(blocks, collected, strict=True):
        for key, module in (("q", block.attn.q_norm), ("k", block.attn.k_norm)):

            def collect(
                _module: object, _args: object, output: Tensor, store: dict[str, Tensor] = store, key: str = key
            ) -> None:
                store[key] = output

            handles.append(module.register_forward_hook(collect))
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


def score(model: VisionTransformer, images: Tensor, importance: Importance = "last") -> Features:
    """One forward pass over normalised images (B, 3, H, W). The results have no gradient.

    `importance` selects how a unit is scored. `last`: CLS attention of the last layer, averaged over heads (as in Im et
    al., 2024). `rollout`: CLS row of the product over the last six layers of (mean attention + I) / 2 (Abnar & Zuidema,
    2020). Both are restricted to the units, so they sum to less than 1. `gradient`: influence of a unit on the edge
    answer, from a gradient through two layers; its scale differs between frames.
    """
    return features_of_pass(model, *tokens_and_importance(model, images, importance))


def features_of_pass(model: VisionTransformer, tokens: Tensor, importance: Tensor) -> Features:
    """Features from final tokens (B, T, D) and importance (B, N)."""
    with torch.no_grad():
        units, read = tokens[:, model.num_prefix_tokens :], read_features(model, tokens)
        return Features(logits_of(model, tokens), importance, units, tokens[:, 0], read)


def tokens_and_importance(model: VisionTransformer, images: Tensor, importance: Importance) -> tuple[Tensor, Tensor]:
    """Final tokens (B, T, D) and importance (B, N) of normalised images (B, 3, H, W)."""
    with torch.no_grad():
        if importance == "gradient":
            return _by_gradient(model, images)
        return _by_attention(model, images, ROLLOUT_LAYERS if importance == "rollout" else 1)


def _by_attention(model: VisionTransformer, images: Tensor, layers: int) -> tuple[Tensor, Tensor]:
    """The CLS row of the attention of the last layer, or of the rollout over several."""
    blocks = list(model.blocks)[-layers:]
    with _queries_and_keys(blocks) as collected:
        tokens = model.forward_features(images)
    *earlier, last = [(qk["q"] * block.attn.scale, qk["k"]) for block, qk in zip(blocks, collected, strict=True)]
    row = (last[0][:, :, :1] @ last[1].transpose(-2, -1)).softmax(-1).mean(1)  # (B, 1, T): the CLS row is enough
    if layers > 1:
        row = row + F.one_hot(torch.zeros(1, dtype=torch.long, device=row.device), tokens.shape[1])
        for q, k in reversed(earlier):
            row = row / 2
            row = row + row @ (q @ k.transpose(-2, -1)).softmax(-1).mean(1)
        row = row / 2
    return tokens, row[:, 0, model.num_prefix_tokens :]


def _by_gradient(model: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Importance = smoothed(relevance x contrast).

    Relevance: `models.relevance` over the last two blocks, from the highest logit. Contrast is the standard deviation
    of a unit's own logits over the ten most likely classes, weighted by the edge's probabilities: how well the unit
    separates these classes. A Gaussian spreads importance to neighbours, because the server needs whole parts of
    objects.
    """
    prefix = model.num_prefix_tokens
    tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    tokens = model.blocks[:-GRADIENT_LAYERS](tokens)
    traces = []
    for block in model.blocks[-GRADIENT_LAYERS:]:
        tokens, trace = run_block(block, tokens)
        traces.append(trace)
    final = model.norm(tokens)
    logits = logits_of(model, final)
    rows, gradient = answer_gradient(model, final, logits)
    gradient = pull_back(model.norm, take(tokens, rows), gradient)
    start = readout_row(model, final.shape[1]).to(final)
    row = relevance(traces, start, rows, gradient, GRADIENT_TOKENS)
    reached = (row - start)[:, prefix:]  # without the constant with which units enter a mean themselves
    contrast = _contrast(model, final[:, prefix:], logits)
    return final, _smooth(reached * contrast, model.patch_embed.grid_size[0])


def _contrast(model: VisionTransformer, tokens: Tensor, logits: Tensor) -> Tensor:
    """Contrast (B, N) from unit tokens (B, N, D) and logits (B, C); its mean over the units of a picture is 1."""
    # Padded, so that the number of candidates depends on no shape: padding has probability 0.
    top = F.pad(logits, (0, CANDIDATES - 2), value=-torch.inf).topk(CANDIDATES, dim=1)
    probs = top.values.softmax(1)[:, None]  # (B, 1, K)
    candidates = top.indices.clamp(max=logits.shape[1] - 1)
    own = model.fc_norm(tokens) @ unit_weight(model)[candidates].transpose(1, 2)  # (B, N, K)
    centred = own - (own * probs).sum(-1, keepdim=True)
    deviation = (centred.square() * probs).sum(-1).sqrt()
    contrast: Tensor = deviation / deviation.mean(1, keepdim=True).clamp_min(1e-12)
    return contrast


def _smooth(values: Tensor, side: int) -> Tensor:
    """Smooths (B, N) on a grid of N = side x side with Gaussian weights; they sum to 1 also at the border."""
    positions = torch.arange(side, device=values.device, dtype=values.dtype)
    kernel = torch.exp(-(positions[:, None] - positions).square() / (2 * SMOOTHING**2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    return (kernel @ values.reshape(-1, side, side) @ kernel.T).flatten(1)


def to_units(images: Tensor, patch: int) -> Tensor:
    """Cuts (B, C, H, W) into units (B, N, C, patch, patch) in row-major order."""
    b, c, h, w = images.shape
    rows, columns = h // patch, w // patch
    tiles = images.reshape(b, c, rows, patch, columns, patch)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, rows * columns, c, patch, patch)


def token_table(model: VisionTransformer) -> Tensor:
    """The prefix tokens and position embeddings that the model adds before its blocks, (1, P + N, D).

    timm itself computes them from zero patch tokens, so every kind of position embedding works.
    """
    table: Tensor = model._pos_embed(model.pos_embed.new_zeros(1, model.patch_embed.num_patches, model.embed_dim))
    return table


def embed_units(model: VisionTransformer, patches: Tensor) -> Tensor:
    """The linear part of the patch embedding: normalised patches (B, K, 3, p, p) to tokens (B, K, D)."""
    projection = model.patch_embed.proj
    return F.linear(patches.flatten(2), projection.weight.flatten(1), projection.bias)


def sequence_of_units(model: VisionTransformer, patches: Tensor, units: Tensor, table: Tensor | None = None) -> Tensor:
    """The tokens (B, P + K, D) that enter the network for selected units; arguments as in `features_of_units`."""
    tokens = model.patch_embed.norm(embed_units(model, patches) if patches.ndim == 5 else patches)
    if table is None:
        table = token_table(model)
    prefix = table[:, : model.num_prefix_tokens].expand(len(tokens), -1, -1)
    return torch.cat([prefix, tokens + table[0, model.num_prefix_tokens :][units]], dim=1)


def final_tokens(model: VisionTransformer, sequence: Tensor, present: Tensor | None = None) -> Tensor:
    """Final tokens (B, P + K, D) of the result of `sequence_of_units`.

    `present`: (B, K) bool, False for padding of shorter frames; attention masks these tokens, so they do not change the
    others.
    """
    sequence = model.norm_pre(sequence)
    if present is None:
        sequence = model.blocks(sequence)
    else:
        mask = F.pad(present, (model.num_prefix_tokens, 0), value=True)[:, None, None]  # (B, 1, 1, P + K)
        for block in model.blocks:
            sequence = block(sequence, attn_mask=mask)
    final: Tensor = model.norm(sequence)
    return final


def features_of_units(model: VisionTransformer, patches: Tensor, units: Tensor) -> Tensor:
    """Final tokens (B, P + K, D) from selected units alone.

    `patches`: (B, K, 3, p, p) normalised, or tokens (B, K, D) of `embed_units`. `units`: (B, K) int64, row-major; each
    unit gets the position embedding of its place in the full grid, and missing units are not in the sequence. With all
    units the result equals `model.forward_features`.
    """
    return final_tokens(model, sequence_of_units(model, patches, units))
