"""CSV lines for a spreadsheet."""

from __future__ import annotations

from sagelink.monitor.console.csv_lines import csv_lines


def test_cells_are_quoted_and_are_no_formulas():
    assert "".join(csv_lines([{"a": 1, "b": None, "c": '=x"y', "d": "é,"}])) == '1,,"\'=x""y","é,"\r\n'
