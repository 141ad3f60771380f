"""`sagelink pack` writes the folder of a camera box, and a box runs it in a process that has no PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sagelink.app.cli import app
from sagelink.app.missing_package import LEFT_OUT
from sagelink.models.heads.head import read_head, write_head
from sagelink.models.packed import packing
from sagelink.models.packed.file import PackFile
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from tests.heads import random_head
from tests.packs import packed_head, write_pack

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "edge_export", lambda model, importance: b"graph")


def test_the_folder_holds_all_that_a_box_needs(tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_head(head := random_head(pair), Path("gate.head"))
    Path("site.yaml").write_text(
        "models: demo\nedge: {device: cpu}\nheads: {weather: gate.head}\nbudget: {uplink: 64kbit/s}\n"
    )
    command = ["pack", "--config", "site.yaml", "--head", "gate.head", "--head", "night=gate.head", "--out", "a/box"]
    done = CliRunner().invoke(app, [*command, "--server", "mqtt://broker"])
    assert done.exit_code == 0, done.exception
    box = tmp_path / "a" / "box"
    assert sorted(path.name for path in box.iterdir()) == [
        *("edge.yaml", "frontier.yaml", "head.safetensors", "heads-night.safetensors", "models.pack")
    ]
    assert PackFile(box / "models.pack").card.edge.graphs == ("token",)
    config = load_config(box / "edge.yaml", {"capture.source": "0"})  # from another folder
    assert config.packed == box / "models.pack"
    assert (config.edge_model, config.server_model) == ("demo-edge", "demo-server")
    assert config.encode.frontier == box / "frontier.yaml"
    assert config.head is not None
    assert read_head(config.head).classes == head.classes
    assert config.heads == {"night": box / "heads-night.safetensors"}
    assert (config.ship.server, config.budget.uplink) == ("mqtt://broker", 64_000)
    before = (box / "edge.yaml").read_bytes()
    again = CliRunner().invoke(app, command)
    assert "is not empty; accepted: a new or empty folder" in str(again.exception)
    assert (box / "edge.yaml").read_bytes() == before


def test_a_head_of_other_models_is_refused_before_the_export(tmp_path: Path) -> None:
    write_head(packed_head(), tmp_path / "other.head")
    out = tmp_path / "box"
    done = CliRunner().invoke(
        app, ["pack", "--models", "demo", "--head", str(tmp_path / "other.head"), "--out", str(out)]
    )
    assert "head: the head was taught on edge model" in str(done.exception)
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_found_before_the_export(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, ["pack", "--models", "demo", "--out", str(tmp_path / "file" / "box")])
    assert "is not a folder; accepted: a folder" in str(done.exception)
    assert "exporting" not in done.output


_BOX = """
import sys
for name in {left_out}:
    sys.modules[name] = None  # an import raises ModuleNotFoundError, as where the package is missing
from sagelink.models.runtimes import compilers
from tests.packs import NumpyRuntime
compilers.COMPILERS.clear()
compilers.COMPILERS["numpy"] = NumpyRuntime()
from sagelink.app.cli import main
main()
"""


def _on_a_box(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = _BOX.format(left_out=[*LEFT_OUT])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=_environment(), capture_output=True, text=True
    )


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "COLUMNS": "200"}


def test_a_box_runs_without_pytorch(tmp_path: Path) -> None:
    write_pack(tmp_path / "models.pack")
    write_head(packed_head(), tmp_path / "gate.head")
    (tmp_path / "edge.yaml").write_text(
        "models: demo\npacked: ./models.pack\nhead: ./gate.head\ncapture: {realtime: true, fps: 10, max_frames: 8}\n"
        "ship: {server: 'mqtt://127.0.0.1:1', deadline: 500ms}\ndashboard: {address: '127.0.0.1:0'}\n"
        "output: {out: run, pictures: 5, record: recording}\ngate: {policy: always}\nbudget: {uplink: 64kbit/s}\n"
    )
    done = _on_a_box(tmp_path, "run", "--config", "edge.yaml", "synthetic:8")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    scored = [row for row in rows if row["drop"] != "superseded"]
    assert scored
    assert {row["edge"]["label"] for row in scored} <= {"open", "shut"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "synthetic:2", "--models", "demo"], "this needs PyTorch, which is not installed here"),
        (["teach", ".", "--out", "x.head"], "everything else: on a machine with the whole program"),
        (["serve", "--listen", "mqtt://127.0.0.1"], "this needs PyTorch"),
    ],
)
def test_what_a_box_lacks_is_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = _on_a_box(tmp_path, *arguments)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
