"""Every error of a configuration is in our words: the key, what is accepted, the value. None is in pydantic's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core._pydantic_core import list_all_errors

from sagelink.pipeline.accepted import example, section_of
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import parse_yaml

PHRASES = {text.split("{")[0].strip() for text in (e["message_template_python"] for e in list_all_errors())}
PHRASES = {phrase for phrase in PHRASES if len(phrase) > 6}
WRONG = [
    "nonsense nonsense", "", "a#b", -1, 1e300, float("nan"), True, None, [], {}, ["x"], [[["x"]]], {"x": 1}, [{"a": 1}],
    [[0, 0]], [2, 2, 2, 2], [0.9, 0, 0.1, 1], "\0", {None: None}, {1: {2: 3}}, [None], b"\xff",
]  # fmt: skip
CAMERA = {"name": "gate", "source": "0"}


def keys(section: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in section.model_fields.items():
        yield (*path, name)
        inner = section_of(field)
        if inner is not None and inner is not CameraConfig:
            yield from keys(inner, (*path, name))


EVERY_KEY = [*keys(Config), *((CameraConfig, *path) for path in keys(CameraConfig))]


def tree_with(path: tuple[Any, ...], value: object) -> dict[Any, Any]:
    tree = value
    for step in reversed(path[1:] if path[0] is CameraConfig else path):
        tree = {step: tree}
    assert isinstance(tree, dict)
    return {"cameras": [CAMERA | tree]} if path[0] is CameraConfig else tree


def refusal(tree: dict[Any, Any]) -> str | None:
    try:
        load_config(None, tree)
    except UsageError as error:
        return str(error)
    return None


def test_the_phrases_are_those_of_pydantic() -> None:
    assert {
        "Input should be a valid tuple",
        "Extra inputs are not permitted",
        "Input should be greater than",
    } <= PHRASES


@pytest.mark.parametrize("path", EVERY_KEY, ids=lambda path: ".".join(getattr(step, "__name__", step) for step in path))
def test_no_wrong_value_of_any_key_is_answered_in_the_words_of_pydantic(path: tuple[Any, ...]) -> None:
    refused = 0
    for value in WRONG:
        message = refusal(tree_with(path, value))
        if message is None:
            continue
        refused += 1
        assert not [phrase for phrase in PHRASES if phrase in message], message
        for line in message.splitlines():
            assert "accepted" in line or "is written like" in line or "must be" in line or "got" in line, line
            assert len(line) < 700
    assert refused >= 4


def test_every_example_is_accepted() -> None:
    for section, name in ((Config, "cameras"), *((s, n) for s in _sections() for n in s.model_fields)):
        field = section.model_fields[name]
        sample = example(field)
        if sample is None or (section is CameraConfig and field.is_required()):
            continue
        path = next(path for path in EVERY_KEY if path[-1] == name and _holds(path, section))
        value = parse_yaml(sample, numbers_as_text=True)
        assert refusal(tree_with(path, value)) is None, (name, sample)


def _sections() -> list[type[BaseModel]]:
    return [inner for field in Config.model_fields.values() if (inner := section_of(field)) is not None]


def _holds(path: tuple[Any, ...], section: type[BaseModel]) -> bool:
    if path[0] is CameraConfig:
        return section is CameraConfig and len(path) == 2
    return (len(path) == 1 and section is Config) or section_of(Config.model_fields[path[0]]) is section


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "capture.mask",
            "[[[0, 0], [1, 1]]]",
            "capture.mask.0: accepted: list of polygons, each a list of 3 or more corners [x, y] as fractions from 0 "
            "to 1, such as [[[0, 0], [0.4, 0], [0, 0.3]]]; got [['0', '0'], ['1', '1']]",
        ),
        (
            "capture.mask",
            "[0.1, 0.2]",
            "capture.mask.0: accepted: list of polygons, each a list of 3 or more corners [x, y] as fractions from 0 "
            "to 1, such as [[[0, 0], [0.4, 0], [0, 0.3]]]; got '0.1'",
        ),
        (
            "capture.roi",
            "[0, 0]",
            "capture.roi.2: missing; accepted: [left, top, right, bottom] as fractions from 0 to 1, such as "
            "[0.25, 0, 1, 0.5]",
        ),
        ("capture.fps", "fast", "capture.fps: accepted: number, above 0, at most 1000; got 'fast'"),
        ("select.units", "2.5", "select.units: accepted: whole number, at least 1; got '2.5'"),
        ("mqtt.protocol", "4", "mqtt.protocol: accepted: 5, 3.1.1; got '4'"),
        (
            "events.rules",
            "[{name: r, days: [monday]}]",
            "events.rules.0.days.0: accepted: list of mon, tue, wed, thu, fri, sat, sun; got 'monday'",
        ),
        (
            "edge",
            "deit",
            "edge: accepted: a section with the keys model, checkpoint, labels, device, runtime, precision, "
            "calibration; got 'deit'",
        ),
        (
            "cameras",
            "gate",
            "cameras: accepted: list of cameras, each with a name and a source, such as "
            "[{name: gate, source: 'rtsp://host/stream'}]; got 'gate'",
        ),
        ("cameras", "[{name: a}]", "cameras.0.source: missing; accepted: text"),
    ],
)
def test_the_line_of_an_error(tmp_path: Path, key: str, value: str, line: str) -> None:
    *sections, name = key.split(".")
    file = tmp_path / "c.yaml"
    file.write_text("".join(f"{section}: {{" for section in sections) + f"{name}: {value}" + "}" * len(sections))
    with pytest.raises(UsageError) as caught:
        load_config(file)
    assert str(caught.value) == f"{file}: {line}"


def test_one_line_for_each_key_and_at_most_twenty() -> None:
    mask = [[["x", "y"]] * 50]
    message = refusal({"capture": {"mask": mask}, "threads": 0})
    assert message is not None
    assert [line.partition(":")[0] for line in message.splitlines()] == ["threads", "capture.mask.0.0.0"]
    many = refusal({f"key{number}": 1 for number in range(500)})
    assert many is not None
    assert len(many.splitlines()) == 21
    assert many.endswith("and 480 more errors")


def test_a_refused_secret_is_not_shown() -> None:
    message = refusal({"dashboard": {"token": ["geheim"]}})
    assert message == "dashboard.token: accepted: text, never printed"


def test_an_error_about_the_whole_does_not_print_the_whole() -> None:
    tree = {"budget": {"pace": "even"}, "mqtt": {"username": "someone"}}
    message = refusal(tree)
    assert message is not None
    assert message.startswith("budget.pace even releases quotas")
    assert "someone" not in message


def test_a_wrong_key_of_a_mapping_is_shown_as_the_value_it_is() -> None:
    assert refusal({"head": "site.head", "heads": {"../x": "gate.head"}}) == (
        "heads: accepted: mapping of a name (1 to 64 letters, digits, _ and -) to a head file, such as "
        "{weather: weather.head, gate: gate.head}; got '../x'"
    )
