"""A camera box is installed from deploy/edge-requirements.txt, and runs packed models over a real broker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.brokers import Mosquitto
from tests.conftest import skip_or_fail
from tests.processes import Sagelink

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).parents[2]
_EXPORTER = ("onnx", "protobuf", "ml_dtypes", "typing_extensions")
_MOST_MB = 600
_INSTALL_S = 800.0


def _pip(python: Path, *arguments: str | Path) -> None:
    """Skips the test where the packages cannot be had."""
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S)
    if done.returncode:
        skip_or_fail("index", f"the package index is not reachable: {done.stderr.strip().splitlines()[-1:]}")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment of a box."""
    folder = tmp_path_factory.mktemp("box") / "environment"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    _pip(python, "--require-hashes", "--requirement", ROOT / "deploy" / "edge-requirements.txt")
    checkout = folder.parent / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv*", "runs", "build", "tests", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=ignored)
    _pip(python, "--no-build-isolation", checkout)
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `sagelink pack --models demo`."""
    folder = tmp_path_factory.mktemp("packed")
    path = [str(ROOT / "src")]
    if find_spec("onnx") is None:
        _pip(Path(sys.executable), "--target", folder / "onnx", *_EXPORTER)
        path.append(str(folder / "onnx"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "sagelink", "pack", "--models", "demo", "--out", folder / "box"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_INSTALL_S)
    assert done.returncode == 0, done.stderr
    return folder / "box"


def _run(box: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [box / "bin" / "sagelink", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_INSTALL_S)


def test_a_box_answers_like_pytorch_over_a_broker(box: Path, packed: Path, tmp_path: Path) -> None:
    files = [path for path in box.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) / 1e6 <= _MOST_MB
    names = {path.name for path in (box / "lib").glob("python3*/site-packages/*")}
    assert not names & {"torch", "torchvision", "timm", "matplotlib"}
    source = ["synthetic:40", "--uplink", "unlimited", "--gate", "always"]
    with Mosquitto() as broker, Sagelink("serve", "--listen", broker.url, "--models", "demo") as server:
        server.said("serving")
        done = _run(
            box, "run", *source, "--config", packed / "edge.yaml", "--server", broker.url, "--out", tmp_path / "b"
        )
        assert done.returncode == 0, done.stderr
        with Sagelink("run", *source, "--models", "demo", "--out", tmp_path / "t") as whole:
            assert whole.ended() == 0, whole.output
    of_box, of_torch = (
        [json.loads(line) for line in (tmp_path / run / "results.jsonl").read_text().splitlines()] for run in "bt"
    )
    assert len(of_box) == len(of_torch) == 40
    for one, other in zip(of_box, of_torch, strict=True):
        for key in ("label", "origin", "drop", "units", "codec"):
            assert one[key] == other[key], (one["seq"], key)
        assert one["edge"]["label"] == other["edge"]["label"]
    assert {row["origin"] for row in of_box} == {"fused"}


def test_a_box_names_what_it_lacks(box: Path, tmp_path: Path) -> None:
    done = _run(box, "teach", tmp_path, "--out", tmp_path / "x.head")
    assert (done.returncode, "this needs PyTorch" in done.stderr) == (2, True), done.stderr
    done = _run(box, "doctor")
    assert "camera box" in done.stdout
    assert "onnxruntime" in done.stdout
    assert done.returncode == 0, done.stdout
