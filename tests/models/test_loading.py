"""Weights and models that cannot work are refused when they are loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sagelink.models import loading
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.errors import UsageError

KEY = "blocks.0.attn.qkv.weight"


def demo_with(path: Path, change: Callable[[torch.Tensor], torch.Tensor], prefix: str = "") -> Path:
    """The demo edge's weights with one tensor changed; `prefix` adds a second set of weights that holds it."""
    with safe_open(loading.DEMO_DIR / "edge.safetensors", "pt") as file:
        state, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    if prefix:
        metadata |= {f"{prefix}most_bytes": "1", f"{prefix}most_units": "1"}
    save_file(state | {prefix + KEY: change(state[KEY].clone()).contiguous()}, path, metadata)
    return path


def with_value(value: float, dtype: torch.dtype = torch.float32) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.to(dtype)
        changed[3, 3] = value
        return changed

    return change


@pytest.mark.parametrize("prefix", ["", loading.PARTIAL])
@pytest.mark.parametrize(
    "change",
    [
        with_value(float("nan")),
        with_value(float("inf")),
        with_value(float("-inf"), torch.float16),
        with_value(1e300, torch.float64),  # finite, but not in float32
    ],
)
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], prefix: str
) -> None:
    path = demo_with(tmp_path / "a.safetensors", change, prefix)
    with pytest.raises(UsageError, match=rf"a\.safetensors'.* '{KEY}' holds values that are not finite"):
        loading.load(ModelConfig(checkpoint=path), "demo-edge")


@pytest.mark.parametrize("classes", ["[", "[" * 100_000, "{}", "[1]", '"ab"'])
def test_metadata_without_class_names_is_refused(tmp_path: Path, classes: str) -> None:
    path = demo_with(tmp_path / "a.safetensors", lambda tensor: tensor)
    state, _ = loading.read_checkpoint(path)
    save_file(state, path, {"classes": classes})
    with pytest.raises(UsageError, match=r"a\.safetensors': its metadata 'classes' is not a list of names"):
        loading.load(ModelConfig(checkpoint=path), "demo-edge")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_weights_that_are_no_floats_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    path = demo_with(tmp_path / "a.safetensors", lambda tensor: tensor.to(dtype))
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(UsageError, match=f"'{KEY}' holds {kind} values; accepted: float16, bfloat16"):
        loading.load(ModelConfig(checkpoint=path), "demo-edge")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_accepted(tmp_path: Path, dtype: torch.dtype) -> None:
    path = demo_with(tmp_path / "a.safetensors", lambda tensor: tensor.to(dtype))
    assert loading.load(ModelConfig(checkpoint=path), "demo-edge").vit.patch_embed.proj.weight.dtype == torch.float32


def test_a_damaged_patch_embedding_of_a_server_elsewhere_is_refused(tmp_path: Path) -> None:
    with safe_open(loading.DEMO_DIR / "server.safetensors", "pt") as file:
        state, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    state["patch_embed.proj.bias"][0] = float("nan")
    save_file(state, tmp_path / "a.safetensors", metadata)
    with pytest.raises(UsageError, match=r"'bias' holds values that are not finite"):
        loading.outline(ModelConfig(checkpoint=tmp_path / "a.safetensors"), "demo-server", ("a", "b"))


HEADLESS = "vit_small_patch16_224.dino"
TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


def headless(path: Path) -> Path:
    save_file({k: v.contiguous() for k, v in timm.create_model(HEADLESS, pretrained=False).state_dict().items()}, path)
    return path


def test_a_model_without_classes_is_refused_on_both_sides(tmp_path: Path) -> None:
    checkpoint = headless(tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=f"model '{HEADLESS}' has no classes; accepted: .*head.weight"):
        loading.load(ModelConfig(checkpoint=checkpoint), HEADLESS)
    with pytest.raises(UsageError, match="has no classes"):
        loading.outline(ModelConfig(), HEADLESS, ("a", "b"))
    given = {"models": "demo", "server.model": HEADLESS, "ship.server": "mqtt://127.0.0.1:1"}
    with pytest.raises(UsageError, match="has no classes"):
        Pair.load(load_config(None, given))


@pytest.mark.parametrize("classes", [0, 1, None])
def test_a_head_of_fewer_than_two_classes_is_refused(tmp_path: Path, classes: int | None) -> None:
    """None: a head whose bias is a single number."""
    network = timm.create_model(TINY, pretrained=False, num_classes=classes or 1)
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    if classes == 0:
        state |= {"head.bias": torch.empty(0), "head.weight": torch.empty(0, 192)}
    if classes is None:
        state["head.bias"] = torch.tensor(0.0)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="classes; accepted|has shape"):
        loading.load(ModelConfig(checkpoint=tmp_path / "a.safetensors"), TINY)


def test_a_headless_model_with_a_head_in_its_checkpoint_is_accepted(tmp_path: Path) -> None:
    network = timm.create_model(HEADLESS, pretrained=False, num_classes=3)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, tmp_path / "a.safetensors")
    assert loading.load(ModelConfig(checkpoint=tmp_path / "a.safetensors"), HEADLESS).labels == (
        "class_0",
        "class_1",
        "class_2",
    )
