"""Relevance in closed form, compared with autograd through timm's own blocks."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
from timm.layers import LayerNorm, RmsNorm, SwiGLU
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor

from sagelink.models import vit
from sagelink.models.heads.readout import LinearReadout, answer_gradient, logits_of
from sagelink.models.relevance import relevance, run_block, take
from tests.models.test_vit import make_vit


class GatedAttention(Attention):
    def __init__(self, dim: int, **options: object) -> None:
        super().__init__(dim, gated=True, **options)


NETWORKS = {
    "plain": {},
    "registers": {"reg_tokens": 3},
    "norms, layer scale": {"qk_norm": True, "init_values": 0.1, "scale_attn_norm": True, "scale_mlp_norm": True},
    "mean of units": {"global_pool": "avg", "fc_norm": True},
    "mean of all tokens": {"global_pool": "avg", "pool_include_prefix": True},
    "largest of units": {"global_pool": "max"},
    "other norm and mlp": {"norm_layer": partial(RmsNorm, eps=1e-6), "mlp_layer": SwiGLU},
    "gated": {"attn_layer": GatedAttention},
}


def _supported(kind: str) -> bool:
    if kind == "gated":
        return "gated" in inspect.signature(Attention).parameters
    return set(NETWORKS[kind]) <= set(inspect.signature(VisionTransformer).parameters)


def _by_autograd(model: VisionTransformer, images: Tensor, start: Tensor, layers: int) -> Tensor:
    """Relevance (B, T) from timm's unfused attention."""
    attentions: list[Tensor] = []
    handles = [
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, output: attentions.append(output))
        for block in model.blocks
    ]
    for block in model.blocks:
        block.attn.fused_attn = False
    images = images.clone().requires_grad_()
    logits = logits_of(model, model.forward_features(images))
    gradients = torch.autograd.grad(logits.amax(1).sum(), attentions)
    for handle in handles:
        handle.remove()
    row = start.expand(len(images), 1, -1)
    for attention, gradient in list(zip(attentions, gradients, strict=True))[: -layers - 1 : -1]:
        row = row + row @ (attention * gradient).clamp_min(0).mean(1)
    return row[:, 0].detach()


def _closed(model: VisionTransformer, images: Tensor, start: Tensor, layers: int, most: int) -> Tensor:
    with torch.no_grad():
        tokens = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        tokens = model.blocks[:-layers](tokens)
        traces = []
        for block in model.blocks[-layers:]:
            tokens, trace = run_block(block, tokens)
            traces.append(trace)
        final = model.norm(tokens)
        rows, gradient = answer_gradient(model, final, logits_of(model, final))
        start_of_norm = take(tokens, rows)
    start_of_norm.requires_grad_()
    (gradient,) = torch.autograd.grad(model.norm(start_of_norm), start_of_norm, gradient)
    with torch.no_grad():
        return relevance(traces, start, rows, gradient, most)


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("kind", NETWORKS)
def test_relevance_equals_autograd(kind: str, layers: int) -> None:
    if not _supported(kind):
        pytest.skip("this version of timm has no such option")
    model = make_vit(**NETWORKS[kind]).requires_grad_(False)
    images = torch.randn(2, 3, 48, 48)
    count = 36 + model.num_prefix_tokens
    start = torch.rand(1, count)
    if model.global_pool == "token":
        start = torch.eye(1, count)
    closed = _closed(model, images, start, layers, 100)
    torch.testing.assert_close(closed, _by_autograd(model, images, start, layers), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("reads", ["token", "mean", "token+mean"])
def test_a_taught_classifier(reads: str) -> None:
    model = make_vit(fc_norm=True, class_token=True, norm_layer=LayerNorm).requires_grad_(False)
    torch.manual_seed(2)
    width = 64 if reads == "token+mean" else 32
    model.head = LinearReadout(torch.randn(5, width), torch.randn(5), reads)  # type: ignore[arg-type]
    images, start = torch.randn(2, 3, 48, 48), torch.eye(1, 37) if reads == "token" else torch.full((1, 37), 1 / 37)
    closed = _closed(model, images, start, 2, 100)
    torch.testing.assert_close(closed, _by_autograd(model, images, start, 2), atol=1e-5, rtol=1e-3)


def test_following_few_tokens_changes_little() -> None:
    model = make_vit().requires_grad_(False)
    images = torch.randn(2, 3, 48, 48)
    whole, few, fewer = (_closed(model, images, torch.eye(1, 37), 2, most) for most in (37, 24, 1))
    assert (few <= whole + 1e-6).all()  # tokens that are not followed only lose
    assert (fewer <= few + 1e-6).all()
    assert not torch.equal(few, whole)
    rows = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(few, whole, strict=True)])
    assert (rows > 0.9).all()


def test_score_needs_no_graph() -> None:
    with torch.inference_mode():
        features = vit.score(make_vit(), torch.randn(1, 3, 48, 48), "gradient")
    assert features.importance.isfinite().all()
