"""JSON text that every reader accepts."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.files.json_text import to_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_numbers_that_are_not_finite_are_null() -> None:
    value = {"prob": math.nan, "rows": [1.5, math.inf, (-math.inf, 2)], "name": "NaN"}
    assert json.loads(to_json(value), parse_constant=refuse) == {
        "prob": None,
        "rows": [1.5, None, [None, 2]],
        "name": "NaN",
    }


@given(VALUES)
def test_the_text_is_always_valid(value: object) -> None:
    json.loads(to_json(value), parse_constant=refuse)


def test_finite_values_are_written_as_json_does() -> None:
    value = {"a": [1, 2.5, None, "é"]}
    assert to_json(value) == json.dumps(value)
    assert to_json(value, indent=1) == json.dumps(value, indent=1)
    assert to_json(value, compact=True) == json.dumps(value, separators=(",", ":"))
