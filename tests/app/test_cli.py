"""The command line: exit codes, one clear message, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sagelink.pipeline.config_file import load_config

RUN = ["run", "synthetic:4", "--models", "demo"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "no source given; accepted"),
        (["run", "nowhere.mp4", "--models", "demo"], "'nowhere.mp4' does not exist"),
        ([*RUN, "--uplink", "0"], "budget.uplink: a rate must be above 0; got '0'"),
        ([*RUN, "--uplink", "-5kbit/s"], "budget.uplink: a rate is written like 64kbit/s"),
        ([*RUN, "--window", "0"], "budget.window: a duration must be above 0; got '0'"),
        ([*RUN, "--selector", "sagee"], "unknown selector 'sagee' (did you mean 'sage'?)"),
        ([*RUN, "--gate", "alway"], "unknown policy 'alway' (did you mean 'always'?)"),
        ([*RUN, "--units", "0"], "select.units"),
        ([*RUN, "--set", "gate.polcy=always"], "gate.polcy: unknown key (did you mean 'policy'?)"),
        ([*RUN, "--set", "gate"], "accepted: section.key=value"),
        ([*RUN, "--config", "nowhere.yaml"], "'nowhere.yaml': No such file"),
        ([*RUN, "--annotate", "film.avi"], "'film.avi' is not an .mp4 file"),
        ([*RUN, "--edge-model", "vit_tinny_patch16_224"], "did you mean 'vit_tiny_patch16_224'"),
        ([*RUN, "--edge-checkpoint", "none.safetensors"], "'none.safetensors' does not exist"),
        ([*RUN, "--nonsense"], "No such option: --nonsense"),
        (["nonsense"], "No such command 'nonsense'"),
        (["config", "check", "nowhere.yaml"], "No such file"),
        (["demo", "--frames", "0"], "--frames"),
        (["report", "nowhere"], "results.jsonl': No such file or directory; accepted"),
        (["report", "a", "b", "c"], "3 run folders given; accepted: one, or two"),
    ],
)
def test_wrong_use_is_exit_code_2(command, arguments: list[str], message: str) -> None:
    code, printed = command(*arguments)
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed


def test_a_camera_without_frames_is_exit_code_1(command) -> None:
    code, printed = command("run", "http://user:secret@127.0.0.1:9/x", "--models", "demo", "--duration", "1s")
    assert code == 1
    assert "no camera gave a frame: camera (refused)" in printed
    assert "secret" not in printed


def test_a_run_prints_its_summary(command, tmp_path: Path) -> None:
    code, printed = command(*RUN, "--gate", "always", "--out", tmp_path / "out")
    assert code == 0
    assert "demo-edge -> demo-server" in printed
    assert "peak window" in printed
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == 4


def test_options_override_set_and_file(command, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("gate: {policy: never}\ncapture: {source: 'synthetic:3'}\nmodels: demo\n")
    out = tmp_path / "out"
    code, _ = command("run", "--config", file, "--out", out)
    summary = json.loads((out / "summary.json").read_text())
    assert (code, summary["frames"], summary["drops"]) == (0, 3, {"gate": 3})
    code, _ = command("run", "--config", file, "--out", out, "--gate", "always", "--set", "budget.uplink=unlimited")
    summary = json.loads((out / "summary.json").read_text())
    assert (code, summary["drops"], summary["budget_bits"]) == (0, {}, None)


def test_config_show_is_a_configuration(command, tmp_path: Path) -> None:
    code, printed = command("config", "show", "--set", "budget.uplink=0.5Mbit/s")
    assert code == 0
    file = tmp_path / "shown.yaml"
    file.write_text(printed)
    assert load_config(file) == load_config(None, {"budget.uplink": 500_000})
    assert command("config", "check", file) == (0, f"{file}: valid\n")


@pytest.mark.parametrize("text", ["gate: {policy: sometimes}", "select: {selector: best}", "encode: {codec: gif}"])
def test_config_check_refuses_unregistered_names(command, tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    code, printed = command("config", "check", file)
    assert code == 2
    assert "accepted:" in printed


def test_models_and_doctor(command) -> None:
    code, printed = command("models")
    assert code == 0
    assert "demo-edge" in printed
    assert "deit_base_patch16_224" in printed
    code, printed = command("doctor")
    assert code == 0, printed
    assert "opencv-python-headless" in printed


def test_doctor_finds_two_opencv_packages(command, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagelink.app import doctor

    class Distribution:
        def __init__(self, name: str) -> None:
            self.metadata = {"Name": name}

    packages = [Distribution("opencv-python"), Distribution("opencv-python-headless")]
    monkeypatch.setattr(doctor.metadata, "distributions", lambda: packages)
    code, printed = command("doctor")
    assert code == 1
    assert "opencv-python and opencv-python-headless overwrite each other" in printed


def test_demo_prints_its_table_and_writes_its_runs(command, tmp_path: Path) -> None:
    code, printed = command("demo", "--frames", "20", "--out", tmp_path)
    assert code == 0
    for row in ("edge only", "32 kbit/s", "128 kbit/s", "unlimited"):
        assert row in printed
    for folder, limit in (("32kbit", 32_000), ("128kbit", 128_000)):
        summary = json.loads((tmp_path / folder / "summary.json").read_text())
        assert summary["peak_window_bits"] <= summary["budget_bits"] == limit
    assert (tmp_path / "32kbit" / "annotated.mp4").stat().st_size > 1000


def test_the_command_process_ends_with_the_exit_code() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "sagelink.app.cli", "run", "nowhere.mp4"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.startswith("sagelink: source 'nowhere.mp4'")
    assert process.stdout == ""
