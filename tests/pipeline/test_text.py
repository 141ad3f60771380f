"""Text from outside, made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.text import one_line, safe_text

BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a [/b] :key: 'x' \\ %s", "a [/b] :key: 'x' \\ %s"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("down\r\nWARNING forged", r"down\r\nWARNING forged"),
        ("gate\u202egpj.exe\u2066", r"gate\u202egpj.exe\u2066"),
        ("a\u2028b\x85c\x9bd\x00", r"a\u2028b\x85c\x9bd\x00"),
        ("caf\udce9.mp4", r"caf\udce9.mp4"),  # a file name that is not UTF-8
        ("Straße 門 क्\u200dष 👩\u200d🚒", "Straße 門 क्\u200dष 👩\u200d🚒"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_not_show_becomes_visible(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_line_ends_of_our_own_stay() -> None:
    assert safe_text("two\nlines\x1b") == "two\nlines\\x1b"


@given(st.text())
def test_the_result_is_one_line_that_can_be_written(text: str) -> None:
    line = one_line(text)
    assert line.encode().decode() == line
    assert len(line.splitlines()) <= 1
    assert not [character for character in line if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")]
    assert not {unicodedata.bidirectional(character) for character in line} & BIDI_CONTROLS
    assert one_line(line) == line
