"""The console of all commands: shows text from outside as it is, without markup and without control characters."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.text import Text

from sagelink.pipeline.text import one_line, safe_text

_FILE_WIDTH = 200  # characters of a line in a file or pipe: a table that does not fit would lose its figures


class SafeConsole(Console):
    """A console that reads neither markup nor emoji codes in strings, so that names with `[ ]` are shown as they are.

    To style text, use `style=` or `Text`. Words from outside enter a `Text` through `outside`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = _FILE_WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(safe_text(text), **options)


def outside(text: str, style: str = "") -> Text:
    """Text from outside as one line of a table or panel."""
    return Text(one_line(text), style)
