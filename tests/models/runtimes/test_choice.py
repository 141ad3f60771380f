"""The choice of a runtime for a model, with compilers that need no package."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sagelink.models import loading, vit
from sagelink.models.heads.apply import with_classes
from sagelink.models.heads.readout import LinearReadout, features_of
from sagelink.models.loading import Model
from sagelink.models.runtimes import choice, compiled_blocks, compiled_edge, compilers
from sagelink.models.runtimes.choice import with_runtime
from sagelink.models.runtimes.compilers import Session
from sagelink.models.runtimes.export_cache import ExportError
from sagelink.models.runtimes.trials import EdgeTrial, ServerTrial
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.errors import UsageError


class FakeCompiler:
    """Computes with PyTorch, and adds `noise` to the tokens and the importance."""

    package, extra = "numpy", "fast"  # installed

    def __init__(self, model: Model, noise: float = 0.0, capable: Sequence[str] = ("fp32",)) -> None:
        self._model = model
        self._noise = noise
        self._capable = capable
        self.compiled: list[tuple[str, int]] = []

    def precisions(self) -> Sequence[str]:
        return self._capable

    def compile(self, content: bytes, precision: str, threads: int) -> Session:
        assert content in (b"graph", b"blocks")
        self.compiled.append((precision, threads))
        rng = np.random.default_rng(0)

        def run(values: Mapping[str, Any]) -> list[np.ndarray]:
            found: Sequence[torch.Tensor]
            if content == b"graph":
                images = self._model.normalise(values["pictures"])
                network = self._model.vit
                tokens, importance = vit.tokens_and_importance(network, images, "gradient")
                units, read = tokens[:, network.num_prefix_tokens :], features_of(network, tokens, "token+mean")
                found = [units, tokens[:, 0], importance, read]
            else:
                present = torch.from_numpy(values["mask"] == 0)[:, 0, 0, self._model.vit.num_prefix_tokens :]
                found = [vit.final_tokens(self._model.vit, torch.from_numpy(values["sequence"]), present)]
            noise = self._noise * (10.0 if precision == "bf16" else 1.0)
            return [value.numpy() + noise * rng.standard_normal(value.shape, np.float32) for value in found]

        return run


@pytest.fixture(scope="module")
def edge() -> Model:
    return loading.load(ModelConfig(), "demo-edge")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled_edge, "edge_export", lambda model, importance: b"graph")
    monkeypatch.setattr(compiled_blocks, "block_export", lambda network: b"blocks")
    monkeypatch.setattr(choice, "_milliseconds", lambda trial, models, pictures: _times(models))
    return tmp_path / "sagelink" / "runtimes"


def _times(models: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """`swift` takes half of the time of `slow`, and bf16 half of fp32."""
    known = {"torch fp32": 10.0, "swift fp32": 4.0, "swift bf16": 2.0, "slow fp32": 8.0, "as fast fp32": 9.8}
    return {(runtime, precision): known[f"{runtime} {precision}"] for runtime, precision in models}


def _compilers(monkeypatch: pytest.MonkeyPatch, **available: FakeCompiler) -> None:
    monkeypatch.setattr(compilers, "COMPILERS", available)
    monkeypatch.setattr(choice, "COMPILERS", available)


def _config(**settings: object) -> ModelConfig:
    return ModelConfig.model_construct(**{**ModelConfig().model_dump(), **settings})


def _chosen(edge: Model, threads: int = 1, **settings: object) -> tuple[str, str] | None:
    found = with_runtime(EdgeTrial(edge, "gradient", threads), _config(**settings)).computed_score
    return None if found is None else (found.runtime, found.precision)


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As many pictures as are measured: fewer than in a real calibration, to save time."""
    monkeypatch.setattr(choice, "CALIBRATION_PICTURES", 12)
    folder = tmp_path / "frames"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(choice.CALIBRATION_PICTURES):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(folder / f"{number:03}.png")
    return folder


def test_auto_takes_the_fastest_once(edge: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    swift, slow = FakeCompiler(edge), FakeCompiler(edge)
    _compilers(monkeypatch, slow=slow, swift=swift)
    assert _chosen(edge) == ("swift", "fp32")
    assert len(slow.compiled) == 1
    monkeypatch.setattr(choice, "_measure", None)  # a second measurement would fail
    assert _chosen(edge) == ("swift", "fp32")
    assert len(slow.compiled) == 1
    assert swift.compiled[-1] == ("fp32", 1)


def test_a_choice_holds_for_its_settings_alone(edge: Model, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _compilers(monkeypatch, swift=FakeCompiler(edge))
    _chosen(edge)
    _chosen(edge, threads=2)
    assert len([*cache.glob("*.json")]) == 2
    (first,) = {choice.runtime for choice in choice.cached_choices()}
    assert first == "swift"


def test_a_damaged_choice_is_measured_again(edge: Model, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swift = FakeCompiler(edge)
    _compilers(monkeypatch, swift=swift)
    _chosen(edge)
    (path,) = cache.glob("*.json")
    whole = path.read_text()
    foreign = ("", "[]", '{"model": 1}', "[" * 100_000, whole.replace("10.0", '"fast"'), whole.replace("{", "[{", 1))
    for damaged in (*foreign, whole.replace("swift", "gone")):
        path.write_text(damaged)
        assert _chosen(edge) == ("swift", "fp32")
    assert choice.cached_choices()[0].milliseconds["torch fp32"] == 10.0


def test_auto_leaves_a_runtime_that_disagrees_or_gains_nothing(
    edge: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _compilers(monkeypatch, swift=FakeCompiler(edge, noise=3.0), slow=FakeCompiler(edge))
    assert _chosen(edge) == ("slow", "fp32")
    assert [record.args[2] for record in caplog.records if "disagrees" in record.message] == ["swift fp32"]
    _compilers(monkeypatch, **{"as fast": FakeCompiler(edge)})
    assert _chosen(edge) is None


def test_bf16_needs_pictures_that_confirm_it(edge: Model, frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _compilers(monkeypatch, swift=FakeCompiler(edge, capable=("fp32", "bf16")))
    assert _chosen(edge) == ("swift", "fp32")
    assert _chosen(edge, calibration=frames) == ("swift", "bf16")
    assert _chosen(edge, precision="bf16") == ("swift", "bf16")
    _compilers(monkeypatch, swift=FakeCompiler(edge, noise=0.3, capable=("fp32", "bf16")))
    monkeypatch.setattr(choice, "LEAST_SAME_UNITS", 0.0)
    config, trial = ModelConfig(calibration=frames), EdgeTrial(edge, "gradient", 1)
    models = [trial.computed("swift", precision) for precision in ("fp32", "bf16")]
    assert [choice._agrees(trial, model, "", config) for model in models] == [True, False]
    assert choice._pictures(trial, config).shape == (12, edge.grid.image_size, edge.grid.image_size, 3)


def test_a_failing_export_leaves_pytorch(
    edge: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> bytes:
        raise ExportError("no such operator")

    _compilers(monkeypatch, swift=FakeCompiler(edge))
    monkeypatch.setattr(compiled_edge, "edge_export", fail)
    assert _chosen(edge) is None
    assert sum("no such operator" in record.message for record in caplog.records) == 1
    with pytest.raises(UsageError, match=r"cannot run in swift: no such operator; accepted: edge\.runtime=torch"):
        _chosen(edge, runtime="swift")


def test_a_runtime_that_fails_later_leaves_pytorch(
    edge: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _compilers(monkeypatch, swift=FakeCompiler(edge))
    _chosen(edge)

    def broken(*_: object) -> object:
        raise RuntimeError("illegal instruction\nmore")

    monkeypatch.setattr(compilers.COMPILERS["swift"], "compile", broken)
    assert _chosen(edge) is None
    assert "illegal instruction" in caplog.text
    moved = compiled_edge.CompiledEdge("swift", "fp32", 1, edge)
    pictures = np.zeros((2, edge.grid.image_size, edge.grid.image_size, 3), np.uint8)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = moved(edge.vit, pictures, "gradient")
    np.testing.assert_allclose(found.importance, edge.score(pictures, "gradient").importance)
    assert sum("not_used" in record.message for record in caplog.records) == 2  # one a pass object


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runtime": "openvino"}, r"package openvino is not installed; accepted: pip install 'sagelink\[openvino\]'"),
        ({"runtime": "swift", "precision": "bf16"}, "swift cannot compute bf16 on this CPU; accepted: fp32 or auto"),
        ({"precision": "bf16"}, "none of openvino, swift computes bf16|none of swift computes bf16"),
        ({"runtime": "torch", "precision": "bf16"}, "runtime torch computes in fp32"),
        ({"runtime": "swift", "device": "cuda:0"}, "computes on the CPU, but edge.device is 'cuda:0'"),
        ({"calibration": Path("/nonexistent")}, "folder '/nonexistent' cannot be read"),
    ],
)
def test_wrong_settings_are_named(
    edge: Model, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], message: str
) -> None:
    missing = FakeCompiler(edge)
    missing.package, missing.extra = "no_such_package_here", "openvino"
    _compilers(monkeypatch, openvino=missing, swift=FakeCompiler(edge))
    with pytest.raises(UsageError, match=message):
        _chosen(edge, **settings)


def test_too_few_and_unreadable_pictures(edge: Model, frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _compilers(monkeypatch, swift=FakeCompiler(edge))
    (frames / "003.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"picture '.*003.png' cannot be read"):
        _chosen(edge, calibration=frames)
    (frames / "003.png").unlink()
    with pytest.raises(UsageError, match="has 11 pictures; accepted: at least 12"):
        _chosen(edge, calibration=frames)


def test_without_a_package_nothing_changes(edge: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    _compilers(monkeypatch)
    assert _chosen(edge) is None
    with pytest.raises(UsageError, match="bf16 needs the package openvino"):
        _chosen(edge, precision="bf16")


def test_a_new_head_is_compiled_before_its_first_frame(edge: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    swift = FakeCompiler(edge)
    _compilers(monkeypatch, swift=swift)
    running = with_runtime(EdgeTrial(edge, "gradient", 1), ModelConfig())
    compiled_at_start = len(swift.compiled)
    picture = np.zeros((1, edge.grid.image_size, edge.grid.image_size, 3), np.uint8)
    for reads, width, compilations in (("mean", 1, 1), ("token+mean", 2, 2), ("mean", 1, 2)):
        readout = LinearReadout(torch.randn(2, width * edge.vit.embed_dim), torch.zeros(2), reads)  # type: ignore[arg-type]
        taught = with_classes(running, ("open", "shut"), readout, None)
        assert len(swift.compiled) - compiled_at_start == compilations
        taught.score(picture, "gradient")
        assert len(swift.compiled) - compiled_at_start == compilations


def test_the_server_model_gets_a_runtime_of_its_own(
    monkeypatch: pytest.MonkeyPatch, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = loading.load(ModelConfig(), "demo-server")
    _compilers(monkeypatch, swift=FakeCompiler(server))
    found = with_runtime(ServerTrial(server, 1), ModelConfig())
    assert found.computed_blocks is not None
    assert (found.computed_blocks.runtime, found.computed_blocks.precision) == ("swift", "fp32")
    assert [choice.role for choice in choice.cached_choices()] == ["server"]
    _compilers(monkeypatch, swift=FakeCompiler(server, noise=3.0))
    with pytest.raises(UsageError, match=r"server\.runtime: swift gives other answers than PyTorch"):
        with_runtime(ServerTrial(server, 1), _config(runtime="swift"))
    missing = FakeCompiler(server)
    missing.package = "no_such_package_here"
    _compilers(monkeypatch, openvino=missing)
    with pytest.raises(UsageError, match=r"server\.runtime: the package openvino is not installed"):
        with_runtime(ServerTrial(server, 1), _config(runtime="openvino"))
