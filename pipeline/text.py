"""Makes text from outside safe to show: on a terminal, in a log, in a message.

Names of files and cameras, class names, topics, addresses, reasons and refusals of other sides may hold escape
sequences, line ends that forge a log line, or characters that reverse the order of letters. `one_line` and `safe_text`
make such characters visible (`\\x1b`, `\\n`, `\\u202e`). HTML is escaped by its templates and by `textContent`.
"""

from __future__ import annotations

import unicodedata

# Control and format characters, halves of surrogate pairs (from file names that are not UTF-8), unassigned characters,
# and separators of lines and paragraphs.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # format characters that Persian, Indic scripts and emoji need


def one_line(text: str) -> str:
    """The text as one line that every terminal shows as it is; a character that would not be seen becomes an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def safe_text(text: str) -> str:
    """As `one_line`, for text whose line ends are ours: they stay."""
    return "\n".join(map(one_line, text.split("\n")))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode()
