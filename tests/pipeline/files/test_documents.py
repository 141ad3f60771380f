"""YAML and JSON from elsewhere: whatever it holds, it costs little, and an error says why."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import MAX_BYTES, MAX_DEPTH, DocumentError, parse_json, parse_yaml, read_yaml

ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]\n" for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{last}'] * 9)}]}}\n"
    for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE_YAML = [
    (ALIASES, "too many values, with aliases written out"),
    (MERGES, "too many values, with aliases written out"),
    ("a: &a [*a]", "stands inside the value that it repeats"),
    ("[" * 5000 + "]" * 5000, "nested too deeply; accepted: up to 32 levels"),
    ("".join(" " * level + "a:\n" for level in range(600)), "line 32: values are nested too deeply"),
    ("a: " + "9" * 5000, "too many digits"),
    ("a: 0b" + "1" * 5000, "too many digits"),
    ("a: 1" + ":59" * 5000, "too many digits"),
    ("a: 123456789012345678901234567890", "an integer is too large"),
    ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice"),
    ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ("!!bool maybe", "does not fit its type"),
    ("2020-13-45", "does not fit its type"),
    ("? [a]\n: b", "unhashable key"),
    ("\x07", "the character 0x07 is not allowed"),
    ('"\\ud800"', "surrogate"),
    ("a: b: c", "line 1: mapping values are not allowed here"),
    ("#" * (MAX_BYTES + 1), "accepted: up to 500000"),
]
HOSTILE_JSON = [
    ("[" * 100_000, "nested too deeply"),
    ("[" * 900 + "]" * 900, "nested too deeply"),
    ("9" * 5000, "too many digits"),
    ("9" * 4000, "an integer is too large"),
    ("[1e999]", "a number is too large"),
    ("NaN", "NaN is not JSON"),
    ('"\\ud800"', "surrogate"),
    ('{"a": 1, "a": 2}', "given twice"),
    (b'"\xff"', "not UTF-8"),
    ("[" + "1," * 40_000 + "1]", "too many values"),
    ("{", "not JSON"),
]


@pytest.mark.parametrize(("text", "reason"), HOSTILE_YAML)
def test_hostile_yaml_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        parse_yaml(text)


@pytest.mark.parametrize(("text", "reason"), HOSTILE_JSON)
def test_hostile_json_is_refused_with_its_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        parse_json(text)


def test_what_people_write_is_read() -> None:
    assert parse_yaml("x: &x {a: 1, b: [1.5, .inf]}\ny:\n  <<: *x\n  a: 2\nz: [*x, *x]") == {
        "x": {"a": 1, "b": [1.5, float("inf")]},
        "y": {"a": 2, "b": [1.5, float("inf")]},
        "z": [{"a": 1, "b": [1.5, float("inf")]}] * 2,
    }
    assert parse_yaml("") is None
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert parse_json('{"a": [1, -2.5e3, null, "ü"]}') == {"a": [1, -2500.0, None, "ü"]}


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(), st.lists, max_leaves=20))
def test_plain_data_survives(content: object) -> None:
    assert parse_json(json.dumps(content)) == content
    assert parse_yaml(yaml.safe_dump(content)) == content


@given(st.text(alphabet="{}[]&*:-?!|>'\"#%,ab1\n \t"))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        with contextlib.suppress(DocumentError):  # any other error fails the test
            parse(text)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"a: \xff\n", "not UTF-8 text: line 1, byte 0xff"), (b"a" * 600_000, "too large")]
)
def test_a_file_is_text_of_a_bounded_size(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(DocumentError, match=reason):
        read_yaml(tmp_path / "f")


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(DocumentError, match="too large"):
        read_yaml(Path("/dev/zero"))


@pytest.mark.parametrize(("text", "reason"), HOSTILE_YAML)
@pytest.mark.parametrize("numbers_without_unit", [False, True])
def test_a_hostile_configuration_is_a_usage_error(
    tmp_path: Path, text: str, reason: str, numbers_without_unit: bool
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="site.yaml") as error:
        load_config(path, numbers_without_unit=numbers_without_unit)
    assert len(str(error.value)) < 1000
    if numbers_without_unit:  # else numbers and dates stay text, which the schema refuses
        assert re.search(f"site.yaml' is not YAML: .*{reason}", str(error.value))


def test_an_error_quotes_little_of_a_large_value(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"threads: {'x' * 5000}\n" + "".join(f"key{number}: 1\n" for number in range(500)))
    with pytest.raises(UsageError, match="and 481 more errors") as error:
        load_config(path)
    assert len(str(error.value)) < 20_000
