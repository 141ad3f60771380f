"""Writes rows as CSV lines for a spreadsheet: takes mappings, yields one line of text for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def csv_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """CSV lines without the head line. Text that a spreadsheet would take for a formula is marked as text."""
    for row in rows:
        cells = []
        for value in row.values():
            text = "" if value is None else str(value)
            if isinstance(value, str) and text[:1] in "=+-@\t":
                text = f"'{text}"
            cells.append('"' + text.replace('"', '""') + '"' if isinstance(value, str) else text)
        yield ",".join(cells) + "\r\n"
