"""The console of all commands: tables in files and pipes."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from sagelink.monitor.terminal.terminal import SafeConsole

CELLS = [f"{number:+.1f} (-12.3 to +45.6)" for number in range(6)]


def printed(**options: object) -> str:
    table = Table(box=None)
    for _ in CELLS:
        table.add_column(no_wrap=True)
    table.add_row(*CELLS)
    text = io.StringIO()
    SafeConsole(file=text, **options).print(table)
    return text.getvalue()


def test_a_table_in_a_file_keeps_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert all(cell in printed() for cell in CELLS)
    monkeypatch.setenv("COLUMNS", "60")  # somebody asked for it
    assert "…" in printed()
