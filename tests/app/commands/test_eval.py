"""The commands `sagelink eval` and `sagelink calibrate` with the demo pair on synthetic scenes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from sagelink.lab.eval import accuracy_by_units
from sagelink.lab.eval.report import UnitsRow
from sagelink.stages.sources.synthetic import SyntheticSource
from sagelink.transport.codecs import Canvas

DEMO = ("--models", "demo")
FEW = ("--units", "16,196", "--selectors", "sage,coverage,random", "--importance", "last,gradient")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 scenes with labels.csv."""
    folder = tmp_path_factory.mktemp("scenes")
    source = SyntheticSource(24, 112, 112, seed=5, hold=1)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label"])
        for number, frame in enumerate(source):
            Image.fromarray(frame.pixels).save(folder / f"{number:02d}.png")
            table.writerow([f"{number:02d}.png", frame.truth])
    return folder


@pytest.mark.campaign
def test_eval_measures_every_selector(command, scenes: Path, tmp_path: Path) -> None:
    code, printed = command("eval", scenes, "--labels", scenes / "labels.csv", *DEMO, *FEW, "--out", tmp_path)
    assert code == 0, printed
    report = json.loads((tmp_path / "eval.json").read_text())
    assert (report["images"], report["truth"], report["interrupted"]) == (24, "labels", False)
    cells = {(row["selector"], row["importance"], row["units"]): row for row in report["rows"]}
    assert len(cells) == len(report["rows"]) == 10
    assert ("random", "none", 16) in cells
    for (_, _, units), row in cells.items():
        assert row["bytes_max"] >= row["bytes_mean"] > 0
        assert row["vs_paper"].keys() == {"server_acc", "fused_acc"}
        if units == 196:  # all units: the order does not matter
            assert row["server_acc"] == report["ceiling"]
            assert row["fused_acc"] == report["fused_ceiling"]
        low, high = row["ci95"]["server_acc"]
        assert 0 <= low <= row["server_acc"] <= high <= 1
    assert cells["sage", "last", 16]["vs_paper"]["server_acc"] == [0.0, [0.0, 0.0]]
    assert {path.name for path in tmp_path.iterdir()} == {
        "eval.json",
        *(f"accuracy-{x}.{suffix}" for x in ("units", "bytes") for suffix in ("png", "svg")),
    }


def test_eval_compares_codecs_under_caps(command, scenes: Path, tmp_path: Path) -> None:
    caps = ("--bytes", "10,700,100000", "--codecs", "auto,webp-frame,jpeg-frame,raw-zstd")
    code, printed = command("eval", scenes, "--labels", scenes / "labels.csv", *DEMO, *caps, "--out", tmp_path)
    assert code == 0, printed
    report = json.loads((tmp_path / "eval.json").read_text())
    rows = {(row["codec"], row["cap_bytes"]): row for row in report["rows"]}
    assert len(rows) == len(report["rows"]) == 12
    for (codec, cap), row in rows.items():
        if cap == 10:  # no message is so short
            assert (row["sent"], row["bytes_max"], row["server_acc"]) == (0.0, None, 0.0)
            assert row["fused_acc"] == report["edge"]
            continue
        assert row["bytes_max"] is None or row["bytes_mean"] <= row["bytes_max"] <= cap
        best = rows[row["best_frame"], cap]
        assert best["codec"] in ("webp-frame", "jpeg-frame")
        assert row["vs_frame"]["server_acc"][0] == pytest.approx(row["server_acc"] - best["server_acc"])
        if cap == 100_000 and codec in ("auto", "raw-zstd"):
            assert row["sent"] == 1.0
    assert rows["raw-zstd", 100_000]["server_acc"] == report["ceiling"]  # all units, lossless
    assert {path.name for path in tmp_path.iterdir()} == {"eval.json", "accuracy-bytes.png", "accuracy-bytes.svg"}


def test_without_labels_the_server_on_all_units_is_the_reference(command, scenes: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in scenes.glob("*.png"):
        (images / path.name).symlink_to(path)
    (images / "broken.png").write_bytes(b"")
    few = ("--units", "196", "--selectors", "sage", "--importance", "last", "--gate", "never")
    code, printed = command("eval", images, *DEMO, *few, "--out", tmp_path / "out")
    assert code == 0, printed
    assert "1 images could not be read and were skipped" in printed
    report = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert (report["truth"], report["ceiling"], report["offloaded"]) == ("server", 1.0, 0.0)
    (row,) = report["rows"]
    assert row["server_acc"] is None  # the gate offloads nothing
    assert row["fused_acc"] == report["edge"]


def test_eval_reads_labels_from_class_folders(command, scenes: Path, tmp_path: Path) -> None:
    with (scenes / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            folder = tmp_path / "images" / row["label"]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / row["file"]).symlink_to(scenes / row["file"])
    options = (*DEMO, "--units", "48", "--selectors", "sage", "--importance", "last")
    reports = []
    for number, images in enumerate(([tmp_path / "images"], [scenes, "--labels", scenes / "labels.csv"])):
        code, printed = command("eval", *images, *options, "--out", tmp_path / str(number))
        assert code == 0, printed
        reports.append(json.loads((tmp_path / str(number) / "eval.json").read_text()))
    for key in ("images", "truth", "edge", "ceiling", "fused_ceiling", "hard_share"):
        assert reports[0][key] == reports[1][key]
    assert reports[0]["rows"][0]["server_acc"] == reports[1]["rows"][0]["server_acc"]


def test_ctrl_c_keeps_complete_rows(command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = accuracy_by_units.units_rows

    def interrupted(*arguments: object) -> Iterator[UnitsRow]:
        for number, row in enumerate(real(*arguments)):
            if number == complete:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(accuracy_by_units, "units_rows", interrupted)
    evaluate = ("eval", scenes, "--labels", scenes / "labels.csv", *DEMO, *FEW, "--out", tmp_path)
    complete = 3
    code, printed = command(*evaluate)
    assert code == 0
    assert "interrupted; complete rows: 3" in printed
    complete = 0
    code, printed = command(*evaluate)
    assert (code, "interrupted before there was a result" in printed) == (1, True), printed
    report = json.loads((tmp_path / "eval.json").read_text())
    assert report["interrupted"] is True
    assert len(report["rows"]) == 3
    assert (tmp_path / "accuracy-units.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--units", "16,0"], "--units '16,0'; accepted: 1 to 196"),
        (["--units", "few"], "whole numbers with commas"),
        (["--selectors", "sagee"], "--selectors: unknown 'sagee' (did you mean 'sage'?)"),
        (["--bytes", "0"], "--bytes '0'; accepted: 1 to"),
        (["--bytes", "500", "--codecs", "avi"], "--codecs: unknown 'avi' (did you mean 'avif'?)"),
        (["--importance", ","], "--importance is empty; accepted: last, rollout, gradient"),
        (["--rows", "odd"], "--rows 'odd'; accepted: START::STEP"),
        (["--gate", "alway"], "unknown policy 'alway'"),
        (["--limit", "5"], "5 images to measure; accepted: 20 or more"),
        (["--labels", "nowhere.csv"], "labels 'nowhere.csv' does not exist; accepted: a CSV file"),
    ],
)
def test_eval_refuses_invalid_arguments(
    command, scenes: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, printed = command("eval", scenes, *DEMO, *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert message in " ".join(printed.split())
    assert not (tmp_path / "out").exists()


def test_calibrate_refuses_invalid_arguments(command, scenes: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["synthetic:8", "--out", tmp_path / "f.yaml"], "8 frames to measure"),
        (["nowhere", "--out", tmp_path / "f.yaml"], "'nowhere' does not exist"),
        (["synthetic:24", "--out", tmp_path], "is a folder; accepted: a new file"),
    ):
        code, printed = command("calibrate", *arguments, *DEMO)
        assert code == 2
        assert message in " ".join(printed.split())
    assert not (tmp_path / "f.yaml").exists()


def test_calibrate_continues_after_ctrl_c(
    command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagelink.lab.eval import frontier_measurement

    plans = [
        (curve, points[:3])
        for curve, points in frontier_measurement.plan_curves(Canvas(14, 8))
        if curve.codec in ("raw-zstd", "token-zstd")
    ]
    monkeypatch.setattr(frontier_measurement, "plan_curves", lambda canvas: plans)
    real, calls = frontier_measurement.best_weight, []

    def interrupted(*arguments: object) -> float:
        """Called once per point; three curves have three points each."""
        calls.append(1)
        if len(calls) in (2, 7):  # in the first curve, then in the second
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(frontier_measurement, "best_weight", interrupted)
    calibrate = ("calibrate", scenes, *DEMO, "--frames", "24", "--out")
    code, printed = command(*calibrate, tmp_path / "a.yaml")
    assert code == 1
    assert "interrupted; no line is complete, nothing is kept" in printed
    assert not [*tmp_path.iterdir()]
    code, printed = command(*calibrate, tmp_path / "a.yaml")
    assert code == 1
    assert f"interrupted; complete lines are kept in {tmp_path / 'a.yaml.resume'}: the same command" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"a.yaml.resume"}
    calls.extend([1] * 100)
    before = len(calls)
    code, printed = command(*calibrate, tmp_path / "a.yaml")
    assert code == 0, printed
    assert len(calls) - before == 6  # the first curve's three points are not measured again
    assert {path.name for path in tmp_path.iterdir()} == {"a.yaml"}
    code, printed = command(*calibrate, tmp_path / "b.yaml")
    assert (tmp_path / "a.yaml").read_text() == (tmp_path / "b.yaml").read_text()


def test_a_run_plans_with_a_calibrated_frontier(
    command, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagelink.lab.eval import frontier_measurement

    sweep = frontier_measurement.Sweep("webp", (10, 50))
    monkeypatch.setattr(frontier_measurement, "SWEEPS", (sweep,))
    monkeypatch.setattr(frontier_measurement, "UNIT_SWEEPS", {})
    monkeypatch.setattr(frontier_measurement.plan_curves, "__defaults__", ((sweep,),))
    path = tmp_path / "frontier.yaml"
    labels = ("--labels", scenes / "labels.csv")
    code, printed = command("calibrate", scenes, *labels, *DEMO, "--frames", "24", "--out", path)
    assert code == 0, printed
    assert "24 frames" in path.read_text().splitlines()[0]
    run = ("run", scenes, *DEMO, "--gate", "always", "--uplink", "unlimited", "--set", f"encode.frontier={path}")
    code, printed = command(*run, "--out", tmp_path / "run")
    assert code == 0, printed
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 24
    assert any(line["units"] for line in lines)
