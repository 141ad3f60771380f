"""The command line: exit codes, one clear message, no traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from sagelink.app.command_line import DASHBOARD
from sagelink.pipeline.config.file import load_config

RUN = ["run", "synthetic:4", "--models", "demo"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "no source given; accepted"),
        (["run", "nowhere.mp4", "--models", "demo"], "'nowhere.mp4' does not exist"),
        ([*RUN, "--uplink", "0kbit/s"], "budget.uplink: a rate must be above 0; got '0kbit/s'"),
        ([*RUN, "--uplink", "-5kbit/s"], "budget.uplink: a rate is written like 64kbit/s"),
        ([*RUN, "--window", "0s"], "budget.window: a duration must be above 0; got '0s'"),
        ([*RUN, "--selector", "sagee"], "unknown selector 'sagee' (did you mean 'sage'?)"),
        ([*RUN, "--gate", "alway"], "unknown policy 'alway' (did you mean 'always'?)"),
        ([*RUN, "--units", "0"], "select.units"),
        ([*RUN, "--set", "gate.polcy=always"], "gate.polcy: unknown key (did you mean 'policy'?)"),
        ([*RUN, "--set", "gate"], "accepted: section.key=value"),
        ([*RUN, "--config", "nowhere.yaml"], "'nowhere.yaml': No such file"),
        ([*RUN, "--annotate", "film.avi"], "'film.avi' is not an .mp4 file"),
        ([*RUN, "--edge-model", "vit_tinny_patch16_224"], "did you mean 'vit_tiny_patch16_224'"),
        ([*RUN, "--edge-model", "deit_tinny"], "did you mean 'deit_tiny_patch16_224'"),
        ([*RUN, "--uplink", "64"], "got '64' without a unit: did you mean 64kbit/s, 64Mbit/s or 64bit/s?"),
        ([*RUN, "--set", "budget.uplink=64"], "got '64' without a unit: did you mean 64kbit/s"),
        ([*RUN, "--window", "10"], "got '10' without a unit: did you mean 10s, 10min or 10h?"),
        ([*RUN, "--duration", "10"], "got '10' without a unit: did you mean 10s, 10min or 10h?"),
        ([*RUN, "--set", "encode.max_message=256"], "got '256' without a unit: did you mean 256kB, 256MB or 256B?"),
        ([*RUN, "--fps", "fast"], "capture.fps: accepted: number, above 0, at most 1000; got 'fast'"),
        ([*RUN, "--units", "many"], "select.units: accepted: whole number, at least 1; got 'many'"),
        ([*RUN, "--dashboard", "127.0.0.1:99999"], "dashboard.address '127.0.0.1:99999'; accepted: host:port"),
        ([*RUN, "--uplnk", "64kbit/s"], "--uplink"),
        (["rnu", "synthetic:4"], "Did you mean 'run'"),
        (["help", "rnu"], "unknown command 'rnu' (did you mean 'run'?)"),
        (["help", "config", "shwo"], "unknown command 'shwo' (did you mean 'show'?)"),
        ([*RUN, "--edge-checkpoint", "none.safetensors"], "'none.safetensors' does not exist"),
        ([*RUN, "--nonsense"], "No such option: --nonsense"),
        (["nonsense"], "No such command 'nonsense'"),
        (["config", "check", "nowhere.yaml"], "No such file"),
        (["demo", "--frames", "0"], "'--frames': accepted: whole number, at least 1; got '0'"),
        (["demo", "--frames", "ten"], "'--frames': accepted: whole number, at least 1; got 'ten'"),
        (["eval-video", "x", "--fps", "0"], "'--fps': accepted: number, 0.1 to 240; got '0'"),
        (["report", "nowhere"], "results.jsonl': No such file or directory; accepted"),
        (["report", "a", "b", "c"], "3 run folders given; accepted: one, or two"),
    ],
)
def test_wrong_use_is_exit_code_2(command, arguments: list[str], message: str) -> None:
    code, printed = command(*arguments)
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed


def test_the_configuration_of_a_number_without_a_unit_is_refused(command, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("budget: {uplink: 64, window: 1.5}\nencode: {max_message: 2000}\n")
    code, printed = command("config", "check", file)
    assert code == 2
    assert [line.rpartition("did you mean ")[2] for line in printed.splitlines()] == [
        "64kbit/s, 64Mbit/s or 64bit/s?",
        "1.5s, 1.5min or 1.5h?",
        "2000kB, 2000MB or 2000B?",
    ]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(command, arguments: list[str]) -> None:
    code, printed = command(*arguments)
    assert code == 0
    assert "..." not in printed.partition("Commands:")[2], "no line is cut off"
    for name in ("run", "replay", "serve", "demo", "report", "eval", "calibrate", "adapt", "eval-video", "doctor"):
        assert f"\n  {name} " in printed


def test_without_arguments_the_help_is_shown(command) -> None:
    code, printed = command()
    assert code == 2
    assert "Commands:" in printed


@pytest.mark.parametrize("arguments", [["run", "--help"], ["run", "-h"], ["help", "run"]])
def test_the_help_of_a_command(command, arguments: list[str]) -> None:
    code, printed = command(*arguments)
    assert code == 0
    assert "--uplink RATE" in printed
    assert "--dashboard [HOST:PORT]" in printed


def test_no_help_shows_a_type_of_python(command) -> None:
    for name in ("run", "replay", "serve", "demo", "report", "eval", "calibrate", "adapt", "eval-video"):
        options = command(name, "-h")[1].partition("Options:")[2]
        assert not re.search(r"<(str|path|int|float|list.*)>", options), options


def test_the_version(command) -> None:
    assert command("--version") == (0, f"sagelink {metadata.version('sagelink')}\n")


@pytest.mark.parametrize(
    ("words", "address", "source"),
    [
        (["--dashboard", "synthetic:4"], DASHBOARD, "synthetic:4"),
        (["--dashboard", "webrtc:127.0.0.1:8630"], DASHBOARD, "webrtc:127.0.0.1:8630"),
        (["--dashboard", "rtsp://host:554"], DASHBOARD, "rtsp://host:554"),
        (["--dashboard", "clip.mp4"], DASHBOARD, "clip.mp4"),
        (["clip.mp4", "--dashboard"], DASHBOARD, "clip.mp4"),
        (["--dashboard", "127.0.0.1:9000", "clip.mp4"], "127.0.0.1:9000", "clip.mp4"),
        (["clip.mp4", "--dashboard", "[::1]:9000"], "[::1]:9000", "clip.mp4"),
        (["clip.mp4", "--dashboard=localhost:9000"], "localhost:9000", "clip.mp4"),
        (["clip.mp4", "--dashboard-address", "box:9000"], "box:9000", "clip.mp4"),
        (["clip.mp4", "--dashboard", "--dashboard-address", "box:9000"], "box:9000", "clip.mp4"),
        (["--dashboard", "--", "0:1"], DASHBOARD, "0:1"),
        (["clip.mp4"], None, "clip.mp4"),
    ],
)
def test_the_dashboard_takes_an_optional_address(
    command, monkeypatch: pytest.MonkeyPatch, words: list[str], address: str | None, source: str
) -> None:
    seen = []
    monkeypatch.setattr("sagelink.app.commands.run._run", seen.append)
    assert command("run", *words)[0] == 0
    assert [(settings.dashboard.address, settings.capture.source) for settings in seen] == [(address, source)]


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
    from sagelink.app.commands import doctor

    class Distribution:
        def __init__(self, name: str) -> None:
            self.metadata = {"Name": name}

    packages = [Distribution("opencv-python"), Distribution("opencv-python-headless")]
    monkeypatch.setattr(doctor.metadata, "distributions", lambda: packages)
    code, printed = command("doctor")
    assert code == 1
    assert "opencv-python and opencv-python-headless overwrite each other" in printed


def test_demo_prints_its_table_and_writes_its_runs(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[Path] = []
    monkeypatch.setattr("sagelink.app.commands.demo.show_own_classes", lambda console, pair, out: taught.append(out))
    code, printed = command("demo", "--frames", "10", "--out", tmp_path)
    assert code == 0
    for row in ("edge only", "32 kbit/s", "128 kbit/s", "unlimited"):
        assert row in printed
    for folder, limit in (("32kbit", 32_000), ("128kbit", 128_000)):
        summary = json.loads((tmp_path / folder / "summary.json").read_text())
        assert summary["peak_window_bits"] <= summary["budget_bits"] == limit
    assert (tmp_path / "32kbit" / "annotated.mp4").stat().st_size > 1000
    assert taught == [tmp_path / "own"]


@pytest.mark.campaign
def test_the_readme_shows_what_the_demo_prints(command, tmp_path: Path) -> None:
    """Other versions of the libraries move the accuracies by a point or two. `all`: of the classes that it teaches."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code, printed = command("demo", "--out", tmp_path)
    assert code == 0
    rows = re.compile(r"│ (edge only|32 kbit/s|128 kbit/s|unlimited|all) .*?│ +([\d.]+)% │", re.MULTILINE)
    shown, found = ({name: float(share) for name, share in rows.findall(text)} for text in (readme, printed))
    assert found == pytest.approx(shown, abs=3)
    assert len(shown) == 5


def test_ctrl_c_while_python_reads_the_modules_is_one_line() -> None:
    code = "import sagelink.__main__ as entry, sys\n"
    code += "class Interrupting:\n  def find_spec(self, *_): raise KeyboardInterrupt\n"
    code += "sys.meta_path.insert(0, Interrupting()); entry.main()"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (1, "sagelink: interrupted before there was a result\n")


def test_the_command_process_ends_with_the_exit_code() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "sagelink.app.cli", "run", "nowhere.mp4"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.startswith("sagelink: source 'nowhere.mp4'")
    assert process.stdout == ""
