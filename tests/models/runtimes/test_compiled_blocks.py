"""The exported blocks of a server model in the real runtimes, compared with PyTorch. Skipped without the packages."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from sagelink.models import loading, vit
from sagelink.models.heads.apply import with_classes
from sagelink.models.heads.readout import LinearReadout
from sagelink.models.loading import Model, Partial
from sagelink.models.runtimes.compiled_blocks import CompiledBlocks
from sagelink.models.runtimes.compilers import COMPILERS
from sagelink.pipeline.config.models import ModelConfig
from sagelink.server.classify import Classifier
from sagelink.server.receive import Received
from tests.conftest import skip_or_fail
from tests.models.test_vit import VARIANTS, make_vit


@pytest.fixture(params=COMPILERS)
def runtime(request: pytest.FixtureRequest) -> str:
    for package in (COMPILERS[request.param].package, "onnx"):
        if find_spec(package) is None:
            skip_or_fail(request.param, f"the package {package} is not installed")
    return str(request.param)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all tests of the session: an export takes seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "user-cache"))


@pytest.fixture(scope="module")
def server() -> Model:
    """With second weights, which differ from the first."""
    model = loading.load(ModelConfig(), "demo-server")
    second = copy.deepcopy(model.vit)
    with torch.no_grad():
        for weight in second.blocks.parameters():
            weight *= 0.9
    return replace(model, partial=Partial(second, max_bytes=500, max_units=6))


def _computed(runtime: str, model: Model) -> Model:
    return replace(model, computed_blocks=CompiledBlocks(runtime, "fp32", 1, model))


def _evidence(model: Model, *counts: int) -> list[Received]:
    rng, grid = np.random.default_rng(0), model.grid
    shape = (grid.patch_size, grid.patch_size, 3)
    return [
        Received(
            seq, np.sort(rng.choice(grid.units, count, replace=False)), rng.integers(0, 256, (count, *shape), np.uint8)
        )
        for seq, count in enumerate(counts)
    ]


def _assert_same_answers(model: Model, computed: Model, batch: list[Received], heads: list[Any] | None = None) -> None:
    for one, other in zip(Classifier(model)(batch, heads), Classifier(computed)(batch, heads), strict=True):
        assert one[0] == other[0]
        assert one[1] == pytest.approx(other[1], abs=1e-3)


def test_answers_are_those_of_pytorch_for_all_lengths(runtime: str, server: Model) -> None:
    """Frames of one length, padded frames, single frames, and frames for the second weights."""
    computed = _computed(runtime, server)
    for counts in ((1,), (20,), (20, 20, 20), (20, 21, 22), (3, 5, 64, 40), (server.grid.units,)):
        _assert_same_answers(server, computed, _evidence(server, *counts))


def test_padding_changes_nothing(runtime: str, server: Model) -> None:
    computed = _computed(runtime, server).computed_blocks
    assert computed is not None
    sequence = torch.randn(2, 9, server.vit.embed_dim)
    present = torch.ones(2, 9 - server.vit.num_prefix_tokens, dtype=torch.bool)
    present[1, -3:] = False
    padded = computed(server.vit, sequence, present)
    torch.testing.assert_close(padded[1:, :6], computed(server.vit, sequence[1:, :6], None), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(padded[:1], computed(server.vit, sequence[:1], None), atol=1e-3, rtol=1e-3)


def test_heads_share_the_blocks(runtime: str, server: Model) -> None:
    torch.manual_seed(0)
    heads = [LinearReadout(torch.randn(3, server.vit.embed_dim), torch.randn(3), "mean"), None]
    _assert_same_answers(server, _computed(runtime, server), _evidence(server, 20, 20), heads)
    readout = LinearReadout(torch.randn(3, server.vit.embed_dim), torch.randn(3), "token")
    taught, computed = (
        with_classes(model, ("a", "b", "c"), readout, None) for model in (server, _computed(runtime, server))
    )
    _assert_same_answers(taught, computed, _evidence(server, 4, 30))


@pytest.mark.parametrize("variant", ["registers", "pre-norm and qk-norm"])
def test_other_networks(runtime: str, variant: str) -> None:
    network: VisionTransformer = make_vit(**VARIANTS[variant])
    model = loading.wrap_network(variant, network, tuple("abcdefg"), "cpu")
    _assert_same_answers(model, _computed(runtime, model), _evidence(model, 4, 9))


def test_other_weights_are_computed_by_pytorch(runtime: str, server: Model) -> None:
    """As in `sagelink adapt`, whose student is a copy of the model."""
    computed, other = CompiledBlocks(runtime, "fp32", 1, server), make_vit()
    sequence = torch.randn(1, 5, other.embed_dim)
    torch.testing.assert_close(computed(other, sequence, None), vit.final_tokens(other, sequence))
