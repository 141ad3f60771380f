"""`sagelink plan`: a recording is repeated to a month."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sagelink.app.cli import app
from sagelink.app.commands.replay import check
from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config


@pytest.fixture(scope="module")
def recording(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "recording"
    given = {
        "models": "demo",
        "capture.source": "synthetic:24,fps=2,hold=4",
        "video.policy": "always",
        "gate.policy": "always",
        "budget.uplink": "64kbit/s",
        "budget.quotas": ["60kB/24h"],
        "output.record": str(folder),
    }
    prepare(load_config(None, given), pair).run()
    return folder


def test_a_replay_with_a_price_gives_the_same_bits(recording: Path, pair: Pair) -> None:
    rows = [json.loads(line) for line in (recording / "frames.jsonl").read_text().splitlines()]
    assert all(row["bit_price"] > 0 for row in rows)
    assert 0 < sum(row["message"] is not None for row in rows) < 24
    check(recording, pair)


def test_a_recording_without_quotas_needs_one(recording: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plan", str(recording), "--pace", "evn"])
    assert done.exit_code != 0
    assert "did you mean 'even'?" in str(done.exception)
    done = CliRunner().invoke(app, ["plan", str(tmp_path)])
    assert done.exit_code != 0


@pytest.mark.campaign
def test_a_plan_compares_paces_and_sizes_of_a_quota(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["plan", str(recording), "--quota", "200MB/month", "--out", str(out)])
    assert done.exit_code == 0, done.output
    report = json.loads((out / "plan.json").read_text())
    assert (out / "plan.png").stat().st_size > 1000
    assert report["measured"] == "accuracy"
    assert len(report["rows"]) == 15
    given = {row["pace"]: row for row in report["rows"] if row["scale"] == 1}
    assert given["as-needed"]["gone_s"] is not None
    assert given["adaptive"]["right"] >= max(given["even"]["right"], given["as-needed"]["right"])
    assert all(row["used_bits"] <= row["scale"] * 8 * 200e6 for row in report["rows"])
