"""Packed models: the file, and the pair that a box opens from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sagelink.models import loading
from sagelink.models.heads.head import write_head
from sagelink.models.loading import DEMO_DIR, Model
from sagelink.models.packed import edge as packed_edge
from sagelink.models.packed import packing
from sagelink.models.packed.file import PackFile, check_pictures
from sagelink.models.packed.packing import packed_models
from sagelink.models.packed.pair import PackedPair
from sagelink.models.run_models import load_models
from sagelink.models.runtimes import compilers
from sagelink.models.runtimes.edge_export import classifier_of
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from tests.packs import LABELS, SIZE, NumpyRuntime, packed_head, write_pack

SERVER = "mqtt://127.0.0.1:1883"


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> NumpyRuntime:
    runtime = NumpyRuntime()
    _use(monkeypatch, plain=runtime)
    return runtime


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_pack(tmp_path / "models.pack")


def _use(monkeypatch: pytest.MonkeyPatch, **runtimes: NumpyRuntime) -> None:
    monkeypatch.setattr(compilers, "COMPILERS", runtimes)
    monkeypatch.setattr(packed_edge, "COMPILERS", runtimes)


def _config(pack: Path, **settings: object) -> Config:
    given = {"models": "demo", "packed": str(pack), "ship.server": SERVER}
    return load_config(None, given | {key.replace("__", "."): value for key, value in settings.items()})


def _opened(pack: Path, **settings: object) -> PackedPair:
    models = load_models(_config(pack, **settings))
    assert isinstance(models, PackedPair)
    return models


def test_a_box_has_the_models_and_the_heads_of_the_file(pack: Path, tmp_path: Path, runtime: NumpyRuntime) -> None:
    own = _opened(pack)
    assert own.edge.labels == LABELS
    assert own.server.is_outline
    assert not own.server.can_compute
    scores = own.edge.score(check_pictures(SIZE), "gradient")
    assert scores.logits.shape == (4, len(LABELS))
    head = packed_head()
    write_head(head, tmp_path / "gate.head")
    taught = _opened(pack, head=str(tmp_path / "gate.head"), heads={"again": str(tmp_path / "gate.head")})
    assert taught.edge.labels == ("open", "shut")
    assert [named.name for named in taught.further] == ["again"]
    compiled = len(runtime.compiled)
    found = own.edge_with_head(head).score(check_pictures(SIZE), "gradient")
    np.testing.assert_allclose(found.logits, scores.class_token @ head.edge.weight.T / 2.0, rtol=1e-4, atol=1e-5)
    assert found.read is not None
    np.testing.assert_allclose(taught.further[0].classifier.logits(found.read), found.logits, rtol=1e-5)
    assert len(runtime.compiled) == compiled  # the pass is that of the model's own classes


def test_a_head_that_reads_other_features_needs_its_own_pass(pack: Path, tmp_path: Path) -> None:
    other = packed_head("token+mean")
    with pytest.raises(UsageError, match=r"are for heads that read token, and this one reads token\+mean.*--any-head"):
        _opened(pack).edge_with_head(other)
    every = write_pack(tmp_path / "every.pack", packing.ALL_READS)
    assert _opened(every).edge_with_head(other).labels == ("open", "shut")
    with pytest.raises(UsageError, match="the head was taught on edge model"):
        _opened(every).edge_with_head(packed_head(backbone="f" * 16))


def test_a_runtime_with_other_answers_is_not_used(
    pack: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _use(monkeypatch, wrong=NumpyRuntime(wrong=True), right=NumpyRuntime())
    assert _opened(pack).edge.sessions.runtime == "right"
    assert "runtime=wrong event=not_used reason='it gives other answers than PyTorch'" in caplog.text
    _use(monkeypatch, wrong=NumpyRuntime(wrong=True))
    with pytest.raises(UsageError, match="cannot run on this machine: wrong: it gives other answers than PyTorch"):
        _opened(pack)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ship__server": ""}, "no weights of the server model; accepted: ship.server"),
        ({"models": "deit"}, "hold demo-edge and demo-server, but the configuration names deit_tiny"),
        ({"edge__checkpoint": "x.safetensors"}, "edge.checkpoint is set"),
        ({"select__importance": "last"}, "select.importance is last, but .* compute gradient"),
        ({"edge__runtime": "torch"}, "torch cannot run packed models"),
        ({"edge__device": "cuda:0"}, "edge.device is 'cuda:0'"),
        ({"edge__precision": "bf16"}, "cannot compute bf16 on this CPU"),
    ],
)
def test_settings_that_ask_for_other_models_are_refused(pack: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _opened(pack, **settings)


def test_a_machine_without_a_runtime_names_the_packages(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = NumpyRuntime()
    missing.package = "no_such_package_here"
    _use(monkeypatch, openvino=missing)
    with pytest.raises(UsageError, match="no package is installed that runs packed models; accepted: pip install onnx"):
        _opened(pack)


def test_a_named_runtime_that_is_not_installed_is_the_one_to_install(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = NumpyRuntime()
    missing.package = "no_such_package_here"
    _use(monkeypatch, openvino=missing, onnxruntime=NumpyRuntime())
    with pytest.raises(UsageError, match="package openvino is not installed; accepted: pip install openvino, or edge"):
        _opened(pack, edge__runtime="openvino")


def test_a_file_that_is_no_pack_or_damaged_is_refused(pack: Path) -> None:
    with pytest.raises(UsageError, match="another kind of file"):
        PackFile(DEMO_DIR / "edge.safetensors")
    with pytest.raises(UsageError, match="there is no such file"):
        PackFile(pack.with_name("none.pack"))
    content = bytearray(pack.read_bytes())
    content[-3] ^= 1
    pack.write_bytes(content)
    with pytest.raises(UsageError, match="its content is damaged; copy the file again"):
        PackFile(pack)
    pack.write_bytes(content[:1000])
    with pytest.raises(UsageError, match="damaged, or no packed models"):
        PackFile(pack)
    write_pack(pack)
    save_file(load_file(pack), pack, {"sagelink_pack": '{"version": 2}'})
    with pytest.raises(UsageError, match="pack again with the version of Sagelink that this box has"):
        PackFile(pack)


def test_the_demo_pair_is_packed_with_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge, server = (loading.load(ModelConfig(), f"demo-{role}") for role in ("edge", "server"))
    exported = []

    def export(model: Model, importance: str) -> bytes:
        exported.append((classifier_of(model.vit).reads, importance))
        return b"graph"

    monkeypatch.setattr(packing, "edge_export", export)
    (tmp_path / "demo.pack").write_bytes(packed_models(edge, server, "last", packing.ALL_READS))
    assert exported == [("token", "last"), ("mean", "last"), ("token+mean", "last")]
    pack = PackFile(tmp_path / "demo.pack")
    assert pack.card.edge.labels == edge.labels
    np.testing.assert_array_equal(pack.classifier.weight, edge.vit.head.weight.numpy())
    matrix, bias = pack.embedding or (None, None)
    np.testing.assert_array_equal(matrix, server.embedding()[0])
    np.testing.assert_array_equal(bias, server.embedding()[1])
    answers, units = pack.expected("mean")
    assert len(answers) == len(units) == 4
    assert units.shape[1] == edge.grid.units // 3
    assert pack.graph("token+mean") == b"graph"
