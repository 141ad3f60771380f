"""Values of options: names and files of heads."""

from __future__ import annotations

import pytest

from sagelink.app.options import head_settings, split_head
from sagelink.pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("option", "name", "file"),
    [
        ("gate.head", "", "gate.head"),
        ("gate=gate.head", "gate", "gate.head"),
        ("gate=runs/lr=3/gate.head", "gate", "runs/lr=3/gate.head"),
        ("lr=3.head", "", "lr=3.head"),
        ("day/lr=3.head", "", "day/lr=3.head"),
    ],
)
def test_a_head_is_a_file_or_a_name_and_a_file(tmp_path, monkeypatch, option, name, file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "day").mkdir()
    for path in ("lr=3.head", "day/lr=3.head"):
        (tmp_path / path).touch()
    assert split_head(option) == (name, file)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("../x=h.head", r"head '../x=h.head' is not a file, and '../x' is not a name; accepted: FILE, or NAME=FILE "),
        ("a b=h.head", "'a b' is not a name"),
        ("=h.head", "'' is not a name"),
        (f"{'x' * 65}=h.head", "1 to 64 letters"),
        ("gate=", "head 'gate=' names no file; accepted: FILE or NAME=FILE"),
        ("", "head '' names no file"),
    ],
)
def test_a_wrong_head_option_names_itself_and_what_is_accepted(option, error):
    with pytest.raises(UsageError, match=error):
        head_settings([option])


def test_the_name_of_a_head_is_that_of_its_file():
    long = "x" * 70
    assert head_settings(["a.head", "my head.head", f"{long}.head"]) == {
        "head": "a.head",
        "heads": {"my-head": "my head.head", "x" * 64: f"{long}.head"},
    }
    with pytest.raises(UsageError, match=r"two heads have the name 'a'; accepted: NAME=FILE, each name once"):
        head_settings(["a.head", "b/a.head"])
