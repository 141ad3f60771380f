"""The single-file outputs of all commands: a file of the user is refused before any work begins, and stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sagelink.models.pair import Pair
from tests.app.commands.test_replay import record


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["calibrate", "synthetic:9", "--out", "{}"], "frontier.yaml"),
        (["calibrate", "synthetic:9", "--out", "frontier.yaml"], "frontier.yaml.resume"),
        (["adapt", "synthetic:9", "--out", "{}"], "adapted.safetensors"),
        (["adapt", "synthetic:9", "--out", "a.safetensors"], "a.safetensors.resume"),
        (["eval", "photos", "--out", "."], "eval.json"),
        (["eval", "photos", "--out", "."], "accuracy-bytes.png"),
        (["eval", "photos", "--out", "."], "accuracy-units.svg"),
        (["eval-video", "synthetic:9", "--out", "."], "eval-video.json"),
        (["eval-video", "synthetic:9", "--out", "."], "eval-video.png"),
        (["eval-video", "synthetic:9", "--out", "."], "cache/outcomes.jsonl"),
        (["report", "run", "--out", "{}"], "page.html"),
        (["report", "run", "--out", "page.html"], "page-bits.png"),
        (["report", "run"], "run/report.html"),
        (["replay", "rec", "--uplink", "9kbit/s", "--out", "."], "comparison.png"),
    ],
)
def test_a_file_of_the_user_is_refused_and_stays(
    pair: Pair, tmp_path: Path, arguments: list[str], file: str, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    if arguments[0] == "report":
        assert command("run", "synthetic:2", "--models", "demo", "--out", "run")[0] == 0
    if arguments[0] == "replay":
        record(pair, tmp_path / "rec", capture__source="synthetic:2")
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".png":
        Image.new("RGB", (8, 8)).save(path)
    else:
        path.write_text(json.dumps({"mine": [1, 2, 3]}))
    before = path.read_bytes()
    options = [] if arguments[0] in ("report", "replay") else ["--models", "demo"]
    code, printed = command(*(argument.format(file) for argument in arguments), *options)
    assert (code, "Traceback" in printed) == (2, False), printed
    expected = (
        f"{file}' exists and Sagelink did not write it; accepted: a new file, or one that `sagelink {arguments[0]}`"
    )
    assert expected in printed
    assert path.read_bytes() == before


def test_a_report_replaces_an_earlier_report(tmp_path: Path, command) -> None:
    assert command("run", "synthetic:2", "--models", "demo", "--out", tmp_path / "run")[0] == 0
    for _ in range(2):
        code, printed = command("report", tmp_path / "run")
        assert code == 0, printed
    assert (tmp_path / "run" / "report.html").stat().st_mode & 0o777 == 0o600
