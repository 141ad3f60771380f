"""README shows the table of `sagelink demo` as a fresh install prints it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sagelink.app.commands import demo
from tests.test_docs import ROOT

TOLERANCE = 3.0  # points: a fresh install has other versions of the libraries, and another processor other roundings


def table(text: str) -> dict[str, list[float]]:
    """Accuracy, offloaded share (%), and bytes per frame, by budget."""
    rows = re.findall(r"^│ ([\w /]+?) +│ +([\d.]+)% │ +(\d+)% │ +(\d+) │", text, re.MULTILINE)
    return {budget: [*map(float, numbers)] for budget, *numbers in rows}


@pytest.mark.campaign
def test_the_table_in_the_readme_is_what_the_demo_prints(tmp_path: Path, capsys, monkeypatch):
    shown = table((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [*shown] == [title for title, _, _ in demo._RUNS]
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(demo, "_RUNS", demo._RUNS[:2])
    monkeypatch.setattr(demo, "show_own_classes", lambda *_: None)
    demo.run_demo(tmp_path, frames=240)
    printed = table(capsys.readouterr().out)
    assert [*printed] == ["edge only", "32 kbit/s"]
    for budget, (accuracy, offloaded, size_bytes) in printed.items():
        expected_accuracy, expected_offloaded, expected_bytes = shown[budget]
        assert accuracy == pytest.approx(expected_accuracy, abs=TOLERANCE), budget
        assert offloaded == pytest.approx(expected_offloaded, abs=TOLERANCE), budget
        assert size_bytes == pytest.approx(expected_bytes, rel=0.05), budget
