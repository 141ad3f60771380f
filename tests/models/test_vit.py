"""Attention, importance and the forward pass on selected units, compared with timm and with plain formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from sagelink.models import demo, loading, vit
from sagelink.models.heads.readout import logits_of
from sagelink.models.preprocess import make_picture, view_box
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.errors import UsageError

VARIANTS = {
    "plain": {},
    "registers": {"reg_tokens": 4, "no_embed_class": True},
    "class position": {"no_embed_class": False, "reg_tokens": 2},
    "average pool": {"class_token": False, "global_pool": "avg"},
    "pre-norm and qk-norm": {"pre_norm": True, "qk_norm": True, "init_values": 1e-2},
}


def make_vit(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=48, patch_size=8, embed_dim=32, depth=8, num_heads=4, num_classes=7, **options
    ).eval()
    for parameter in model.parameters():  # timm starts some of them at zero, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_all_units_give_timms_own_result(variant: str) -> None:
    model = make_vit(**VARIANTS[variant])
    images = torch.randn(2, 3, 48, 48)
    units = torch.arange(36).expand(2, -1)
    logits = logits_of(model, vit.features_of_units(model, vit.to_units(images, 8), units))
    torch.testing.assert_close(logits, model(images), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_order_of_units_does_not_matter_but_their_position_does() -> None:
    model = make_vit()
    patches = vit.to_units(torch.randn(1, 3, 48, 48), 8)
    units = torch.tensor([[3, 7, 20]])
    shuffled = torch.tensor([[20, 3, 7]])
    here = logits_of(model, vit.features_of_units(model, patches[:, units[0]], units))
    reordered = logits_of(model, vit.features_of_units(model, patches[:, shuffled[0]], shuffled))
    torch.testing.assert_close(reordered, here, atol=1e-4, rtol=1e-4)
    elsewhere = logits_of(model, vit.features_of_units(model, patches[:, units[0]], units + 1))
    assert (elsewhere - here).abs().max() > 1e-3


@torch.inference_mode()
def test_missing_units_equal_masked_units() -> None:
    """Leaving units out equals timm's forward pass with an attention mask that hides them."""
    model = make_vit()
    images = torch.randn(1, 3, 48, 48)
    units = torch.tensor([[0, 5, 11, 35]])
    seen = torch.zeros(37, dtype=torch.bool)
    seen[0] = True
    seen[1 + units[0]] = True
    masked = model.forward_head(model.forward_features(images, attn_mask=seen.expand(1, 1, 37, 37)))
    subset = logits_of(model, vit.features_of_units(model, vit.to_units(images, 8)[:, units[0]], units))
    torch.testing.assert_close(subset, masked, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", ["plain", "registers", "pre-norm and qk-norm"])
@torch.inference_mode()
def test_importance_equals_the_attention_formula(variant: str) -> None:
    model = make_vit(**VARIANTS[variant])
    images = torch.randn(2, 3, 48, 48)
    attentions = []
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    for block in model.blocks:
        normed = block.norm1(tokens)
        b, t, d = normed.shape
        q, k, _ = block.attn.qkv(normed).reshape(b, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
        q, k = block.attn.q_norm(q), block.attn.k_norm(k)
        attentions.append((q @ k.transpose(-2, -1) / (d // 4) ** 0.5).softmax(-1).mean(1))
        tokens = block(tokens)
    prefix = model.num_prefix_tokens
    last = vit.score(model, images)
    torch.testing.assert_close(last.importance, attentions[-1][:, 0, prefix:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last.logits, model(images), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last.embeddings, model.forward_features(images)[:, prefix:], atol=1e-4, rtol=1e-4)

    eye = torch.eye(36 + prefix)
    product = eye
    for attention in attentions[-6:]:
        product = (attention + eye) / 2 @ product
    rollout = vit.score(model, images, "rollout").importance
    torch.testing.assert_close(rollout, product[:, 0, prefix:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", ["plain", "registers", "pre-norm and qk-norm"])
def test_importance_by_gradient_equals_its_formula(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "GRADIENT_TOKENS", 100)
    model = make_vit(**VARIANTS[variant]).requires_grad_(False)
    image, prefix = torch.randn(1, 3, 48, 48), model.num_prefix_tokens
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(image)))
    attentions = []
    for block in model.blocks:
        normed = block.norm1(tokens)
        _, t, d = normed.shape
        q, k, v = block.attn.qkv(normed).reshape(1, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
        q, k = block.attn.q_norm(q), block.attn.k_norm(k)
        attention = (q @ k.transpose(-2, -1) / (d // 4) ** 0.5).softmax(-1).requires_grad_()
        attention.retain_grad()
        attentions.append(attention)
        mixed = (attention @ v).transpose(1, 2).reshape(1, t, d)
        tokens = tokens + block.ls1(block.attn.proj(block.attn.norm(mixed)))
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    tokens = model.norm(tokens)
    logits = model.forward_head(tokens)
    logits.max().backward()

    relevance = torch.eye(36 + prefix)
    for attention in attentions[-2:]:
        relevance = relevance + (attention * attention.grad).clamp_min(0).mean(1)[0] @ relevance
    top = logits[0].topk(min(10, logits.shape[1]))
    probs = top.values.softmax(0)
    own = model.fc_norm(tokens)[0, prefix:] @ model.head.weight[top.indices].T
    contrast = (((own - (own @ probs)[:, None]) ** 2) @ probs).sqrt()
    value = relevance[0, prefix:] * contrast / contrast.mean()
    rows, columns = np.divmod(np.arange(36), 6)
    kernel = np.exp(-((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2) / (2 * 0.7**2))
    kernel = torch.tensor(kernel / kernel.sum(1, keepdims=True), dtype=torch.float32)

    with torch.no_grad():
        scored = vit.score(model, image, "gradient")
    torch.testing.assert_close(scored.importance[0], (kernel @ value).detach(), atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(scored.logits, model(image), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scored.embeddings, tokens[:, prefix:].detach(), atol=1e-4, rtol=1e-4)
    assert not scored.importance.requires_grad


@pytest.mark.parametrize("importance", ["last", "rollout"])
def test_hooks_are_removed_afterwards(importance: vit.Importance) -> None:
    model = make_vit()
    vit.score(model, torch.randn(1, 3, 48, 48), importance)
    assert all(block.attn.fused_attn == model.blocks[0].attn.fused_attn for block in model.blocks)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_unsupported_models_are_refused() -> None:
    with pytest.raises(UsageError, match="ResNet"):
        vit.check(timm.create_model("resnet10t"), "resnet10t")
    with pytest.raises(UsageError, match="class token"):
        vit.check_attention(make_vit(**VARIANTS["average pool"]), "pooled")
    oblong = VisionTransformer(img_size=(32, 64), patch_size=8, embed_dim=8, depth=1, num_heads=1)
    with pytest.raises(UsageError, match="square unit grid"):
        vit.check(oblong, "oblong")


def test_pictures_are_scaled_to_the_view() -> None:
    ramp = torch.arange(60 * 120 * 3).remainder(251).to(torch.uint8).reshape(60, 120, 3).numpy()
    assert make_picture(ramp, 32, "squash", "bicubic").shape == (32, 32, 3)
    assert view_box(120, 60, "squash") == (0, 0, 120, 60)
    assert view_box(120, 60, "crop") == (30, 0, 90, 60)
    assert view_box(120, 60, "crop", 0.5) == (45, 15, 75, 45)
    left_half = ramp.copy()
    left_half[:, :20] = 0  # outside of the central square, and of the filter at its edge
    assert (make_picture(ramp, 32, "crop", "bicubic") == make_picture(left_half, 32, "crop", "bicubic")).all()
    assert make_picture(ramp[:32, :32], 32, "squash", "bicubic").tobytes() == ramp[:32, :32].tobytes()
    assert make_picture(ramp[:1, :5], 32, "squash", "bilinear").shape == (32, 32, 3)


class TestCheckpoints:
    def test_missing_key_and_wrong_shape_are_named(self, tmp_path: Path) -> None:
        state = {k: v.contiguous() for k, v in demo.build("edge").state_dict().items()}
        path = tmp_path / "edge.safetensors"
        del state["cls_token"]
        save_file(state, path)
        with pytest.raises(UsageError, match="lacks 'cls_token'"):
            loading.load(ModelConfig(checkpoint=path), "demo-edge")
        state["cls_token"] = torch.zeros(1, 1, 3)
        save_file(state, path)
        with pytest.raises(UsageError, match=r"'cls_token' has shape \(1, 1, 3\), accepted is \(1, 1, 64\)"):
            loading.load(ModelConfig(checkpoint=path), "demo-edge")
        state["cls_token"] = torch.zeros(1, 1, 64)
        state["surplus"] = torch.zeros(1)
        save_file(state, path)
        with pytest.raises(UsageError, match="'surplus'"):
            loading.load(ModelConfig(checkpoint=path), "demo-edge")

    def test_second_weights_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        path, state = tmp_path / "server.safetensors", demo.build("server").state_dict()
        state = {key: value.contiguous() for key, value in state.items()}
        limits = {"partial.most_bytes": "900", "partial.most_units": "100"}
        save_file(state | {"partial.head.bias": torch.ones(16)}, path, limits)
        partial = loading.load(ModelConfig(checkpoint=path), "demo-server").partial
        assert partial is not None
        assert (partial.max_bytes, partial.max_units) == (900, 100)
        assert partial.vit.head.bias.tolist() == [1.0] * 16
        assert torch.equal(partial.vit.cls_token, state["cls_token"])
        for wrong in ({}, {"partial.most_bytes": "many", "partial.most_units": "100"}):
            save_file(state | {"partial.head.bias": torch.ones(16)}, path, wrong)
            with pytest.raises(UsageError, match="does not say which evidence its second weights are for"):
                loading.load(ModelConfig(checkpoint=path), "demo-server")
        save_file(state | {"partial.head.bias": torch.ones(3)}, path, limits)
        with pytest.raises(UsageError, match=r"'head.bias' has shape \(3,\), accepted is \(16,\)"):
            loading.load(ModelConfig(checkpoint=path), "demo-server")
        save_file(state | {"partial.surplus": torch.ones(3)}, path, limits)
        with pytest.raises(UsageError, match="it holds 'surplus'"):
            loading.load(ModelConfig(checkpoint=path), "demo-server")

    def test_not_a_checkpoint(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        with pytest.raises(UsageError, match="does not exist"):
            loading.load(ModelConfig(checkpoint=path), "demo-edge")
        path.write_bytes(b"not weights at all")
        with pytest.raises(UsageError, match="not a safetensors file"):
            loading.load(ModelConfig(checkpoint=path), "demo-edge")

    def test_unknown_names(self) -> None:
        with pytest.raises(UsageError, match="did you mean 'vit_tiny_patch16_224'"):
            loading.load(ModelConfig(), "vit_tinny_patch16_224")
        with pytest.raises(UsageError, match=r"accepted: vit_tiny_patch16_224\.augreg"):
            loading.load(ModelConfig(), "vit_tiny_patch16_224.no_such_tag")

    def test_labels_file(self, tmp_path: Path) -> None:
        names = tmp_path / "names.txt"
        names.write_text("\n".join(f"thing {i}" for i in range(16)))
        assert loading.load(ModelConfig(labels=names), "demo-edge").labels[3] == "thing 3"
        names.write_text("one\ntwo\n")
        with pytest.raises(UsageError, match="2 class names"):
            loading.load(ModelConfig(labels=names), "demo-edge")


@torch.inference_mode()
def test_real_weights_load_and_agree_with_timm(shared: Path) -> None:
    path = shared / "weights" / "vit_tiny_patch16_224_augreg.safetensors"
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    model = loading.load(ModelConfig(checkpoint=path), name)
    assert model.grid == UnitGrid(224, 16, "bicubic", 0.9)
    assert model.labels[281] == "tabby"
    assert model.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    reference = timm.create_model(name, pretrained=False).eval()
    reference.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    images = torch.randn(1, 3, 224, 224)
    logits = logits_of(model.vit, vit.features_of_units(model.vit, vit.to_units(images, 16), torch.arange(196)[None]))
    torch.testing.assert_close(logits, reference(images), atol=1e-4, rtol=1e-4)
