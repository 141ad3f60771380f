"""The exported edge pass in the real runtimes, compared with PyTorch. Skipped where a package is missing."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from sagelink.models import loading
from sagelink.models.heads.apply import with_classes
from sagelink.models.heads.readout import LinearReadout
from sagelink.models.loading import Model
from sagelink.models.model_contract import EdgeScores, Importance
from sagelink.models.runtimes import edge_export as edge_export_module
from sagelink.models.runtimes import export_cache
from sagelink.models.runtimes.compiled_edge import CompiledEdge
from sagelink.models.runtimes.compilers import COMPILERS
from sagelink.models.runtimes.edge_export import edge_export, edge_export_name
from sagelink.models.runtimes.export_cache import ExportError
from sagelink.pipeline.config.models import ModelConfig
from tests.conftest import skip_or_fail
from tests.models.test_vit import VARIANTS, make_vit


@pytest.fixture(params=COMPILERS)
def runtime(request: pytest.FixtureRequest) -> str:
    for package in (COMPILERS[request.param].package, "onnx"):
        if find_spec(package) is None:
            skip_or_fail(request.param, f"the package {package} is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def edge() -> Model:
    return loading.load(ModelConfig(), "demo-edge")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for all tests of the session: an export takes seconds."""
    base = tmp_path_factory.getbasetemp() / "user-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))
    return base / "sagelink" / "exports"


def _pictures(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def _assert_same(found: EdgeScores, expected: EdgeScores) -> None:
    for name in ("logits", "embeddings", "class_token"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-3, rtol=1e-3)
    if expected.read is not None:
        np.testing.assert_allclose(found.read, expected.read, atol=1e-3, rtol=1e-3)  # type: ignore[arg-type]
    scale = float(np.abs(expected.importance).max())
    np.testing.assert_allclose(found.importance / scale, expected.importance / scale, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("importance", ["last", "rollout", "gradient"])
def test_results_are_those_of_pytorch(runtime: str, importance: Importance, edge: Model) -> None:
    compiled, pictures = CompiledEdge(runtime, "fp32", 1, edge), _pictures(edge.grid.image_size)
    compiled.prepare(edge.vit, importance)
    _assert_same(compiled(edge.vit, pictures, importance), edge.score(pictures, importance))


@pytest.mark.parametrize("variant", ["registers", "pre-norm and qk-norm"])
def test_other_networks(runtime: str, variant: str) -> None:
    model = loading.wrap_network(variant, make_vit(**VARIANTS[variant]), tuple("abcdefg"), "cpu")
    compiled = CompiledEdge(runtime, "fp32", 1, model)
    compiled.prepare(model.vit, "gradient")
    _assert_same(compiled(model.vit, _pictures(48), "gradient"), model.score(_pictures(48), "gradient"))


@pytest.mark.parametrize("reads", ["token", "mean", "token+mean"])
def test_heads_share_the_export_of_their_backbone(runtime: str, reads: str, edge: Model, cache: Path) -> None:
    compiled, pictures = CompiledEdge(runtime, "fp32", 1, edge), _pictures(edge.grid.image_size)
    width = edge.vit.embed_dim * (2 if reads == "token+mean" else 1)
    names = []
    for classes in (2, 30):
        torch.manual_seed(classes)
        head = LinearReadout(torch.randn(classes, width), torch.randn(classes), reads)  # type: ignore[arg-type]
        taught = with_classes(edge, tuple(map(str, range(classes))), head, None)
        found = compiled(taught.vit, pictures, "gradient")
        _assert_same(found, taught.score(pictures, "gradient"))
        names.append(edge_export_name(taught, "gradient"))
    assert names[0] == names[1]
    assert (cache / f"{names[0]}.onnx").is_file()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not report the cores of a thread")
def test_a_pass_may_run_on_any_core(runtime: str, edge: Model) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("this machine has one core")
    compiled, pictures = CompiledEdge(runtime, "fp32", 1, edge), _pictures(edge.grid.image_size, 50)
    compiled.prepare(edge.vit, "last")
    running = threading.Thread(target=compiled, args=(edge.vit, pictures, "last"))
    running.start()
    allowed = set()
    while running.is_alive():
        assert running.native_id is not None
        with suppress(ProcessLookupError):  # the thread has just ended
            allowed.add(frozenset(os.sched_getaffinity(running.native_id)))
        running.join(0.001)
    assert allowed == {frozenset(cores)}


def test_a_damaged_export_is_replaced(runtime: str, edge: Model, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = edge_export(edge, "last")
    path = cache / f"{edge_export_name(edge, 'last')}.onnx"
    stored = path.read_bytes()
    for damaged in (b"", stored[:-100], stored[:5000] + b"x" + stored[5001:]):
        path.write_bytes(damaged)
        assert edge_export(edge, "last") == content
        assert path.read_bytes() == stored
    assert caplog.text.count("export_damaged") == 3


def test_old_exports_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, edge: Model) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(export_cache, "_MOST_FILES", 2)
    monkeypatch.setattr(edge_export_module, "_export", lambda model, importance: importance.encode())
    for importance in ("last", "rollout", "gradient"):
        assert edge_export(edge, importance) == importance.encode()  # type: ignore[arg-type]
    assert len([*tmp_path.rglob("*.onnx")]) == 2


def test_a_classifier_that_is_not_linear_is_refused(edge: Model) -> None:
    network: VisionTransformer = make_vit(global_pool="max")
    model = loading.wrap_network("largest", network, tuple("abcdefg"), "cpu")
    with pytest.raises(ExportError, match="not linear|onnx is not installed"):
        edge_export(model, "gradient")
