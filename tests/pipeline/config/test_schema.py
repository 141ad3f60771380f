"""Configurations: accepted values, error messages, and round trips through a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sagelink.pipeline.config.errors import RENAMED
from sagelink.pipeline.config.file import dump_config, load_config, parse_assignments
from sagelink.pipeline.config.models import MODEL_PAIRS
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "edge.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def error_of(path: Path | None, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(path, overrides)
    return str(caught.value)


# Files


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_of_version_0_1_is_refused_with_its_new_name(old, new):
    assert error_of(None, {old: True}) == f"{old} is named {new} since version 0.2"
    stage, key = new.split(".")
    assert key in Config.model_fields[stage].annotation.model_fields


def test_without_a_file_the_defaults_apply():
    assert load_config(None) == Config()


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_file_is_the_defaults(write, text):
    assert load_config(write(text)) == Config()


def test_overrides_replace_values_of_the_file(write):
    path = write("budget: {uplink: 128kbit/s, window: 500ms}\ngate:\n  policy: always\n")
    config = load_config(path, {"budget.uplink": "8kB/s", "models": "demo"})
    assert (config.budget.uplink, config.budget.window) == (64_000, 0.5)
    assert config.gate.policy == "always"
    assert (config.edge_model, config.server_model) == MODEL_PAIRS["demo"][:2]


def test_a_model_may_differ_from_its_pair():
    config = load_config(None, {"edge.model": "vit_tiny_patch16_224", "models": "deit"})
    assert (config.edge_model, config.server_model) == ("vit_tiny_patch16_224", MODEL_PAIRS["deit"][1])


@pytest.mark.parametrize(
    ("settings", "zooms"),
    [
        ({}, True),
        ({"models": "demo"}, False),
        ({"models": "demo", "video.zoom": True}, True),
        ({"models": "demo", "edge.model": "a", "server.model": "b"}, True),
        ({"server.model": "demo-server"}, False),
        ({"video.zoom": False}, False),
    ],
)
def test_zoom_needs_models_that_recognise_objects_at_any_size(settings, zooms):
    assert load_config(None, settings).zooms == zooms


@pytest.mark.parametrize(
    ("text", "held"),
    [("- a\n- b\n", "a list"), ("just words", "only 'just words'"), ("17", "only '17'"), ("true", "only 'True'")],
)
def test_yaml_that_is_not_a_mapping_is_refused(write, text, held):
    path = write(text)
    expected = f"configuration {str(path)!r} holds {held}; accepted: sections, such as budget: {{uplink: 64kbit/s}}"
    assert error_of(path) == expected


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tgate:", b"\xff\xfe\xfa", "a: !!python/object:os.system {}"])
def test_invalid_yaml_is_refused(write, text):
    path = write(text)
    message = error_of(path)
    assert message.startswith(f"configuration {str(path)!r} is not YAML")


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.yaml"
    assert error_of(path) == f"configuration {str(path)!r}: No such file or directory"


def test_a_folder_is_not_a_file(tmp_path):
    assert error_of(tmp_path).startswith(f"configuration {str(tmp_path)!r}: ")


# Unknown keys


def test_an_unknown_key_of_a_section(write):
    path = write("gate:\n  treshold: 0.5\n")
    assert error_of(path) == (
        f"{path}: gate.treshold: unknown key (did you mean 'threshold'?); accepted: policy, threshold"
    )


def test_an_unknown_section():
    message = error_of(None, {"gates.policy": "always"})
    assert message.startswith("gates: unknown key (did you mean 'gate'?); accepted: ")
    assert all(name in message for name in Config.model_fields)


def test_a_key_similar_to_no_other_gets_no_suggestion():
    message = error_of(None, {"select.qqq": 1})
    assert message == "select.qqq: unknown key; accepted: importance, min_units, seed, selector, units"


def test_a_key_below_a_value(write):
    path = write("gate:\n  policy: always\n")
    assert error_of(path, {"gate.policy.x": 1}) == "gate.policy.x: policy is a value, not a section"


def test_a_key_below_a_scalar_section(write):
    assert error_of(write("gate: always\n"), {"gate.policy": "never"}) == "gate.policy: gate is a value, not a section"


def test_all_errors_are_reported_at_once(write):
    message = error_of(write("gate: {polcy: x}\nbudget: {uplink: fast, window: -1}\n"))
    assert [line.split(": ")[1] for line in message.splitlines()] == ["gate.polcy", "budget.uplink", "budget.window"]


# Values: each error names the key, the value and what is accepted


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("models", "huge", "accepted: deit, demo;"),
        ("threads", 0, "whole number, at least 1, at most 256"),
        ("threads", 257, "whole number, at least 1, at most 256"),
        ("threads", "many", "whole number, at least 1, at most 256"),
        ("capture.realtime", "perhaps", "accepted: true, false;"),
        ("capture.resize", "stretch", "squash, crop"),
        ("capture.image_fps", 0, "number, above 0, at most 1000"),
        ("capture.image_fps", 1001, "number, above 0, at most 1000"),
        ("capture.image_fps", float("nan"), "number, above 0, at most 1000"),
        ("capture.open_timeout", "soon", "500ms, 1s, 2min, 1h or 1d"),
        ("capture.read_timeout", "0s", "above 0"),
        ("edge.device", "gpu", "cpu, cuda, cuda:N, mps, such as cuda:0"),
        ("server.device", "cuda:x", "cpu, cuda, cuda:N, mps, such as cuda:0"),
        ("gate.threshold", -0.5, "number, at least 0"),
        ("gate.threshold", float("nan"), "number, at least 0"),
        ("gate.threshold", float("inf"), "number, at least 0"),
        ("gate.policy", [3], "accepted: text;"),
        ("budget.uplink", "64 mbit", "64kbit/s, 0.5Mbit/s, 8kB/s or unlimited"),
        ("budget.uplink", "0bit/s", "above 0"),
        ("budget.uplink", True, "64kbit/s"),
        ("budget.window", "1 fortnight", "500ms, 1s, 2min, 1h or 1d"),
        ("budget.window", "0s", "above 0"),
        ("select.importance", "first", "last, rollout, gradient"),
        ("select.units", 0, "whole number, at least 1"),
        ("select.units", 1.5, "whole number"),
        ("select.min_units", 0, "whole number, at least 1"),
        ("select.seed", -1, "whole number, at least 0"),
        ("encode.max_message", "2 bits", "2kB, 1.5MB or 64KiB"),
        ("ship.in_flight", 0, "at least 1, at most 64"),
        ("ship.in_flight", 65, "at least 1, at most 64"),
        ("ship.deadline", "never", "500ms, 1s, 2min, 1h or 1d"),
        ("fuse.rule", "mean", "weighted, server"),
        ("output.annotate", "run.avi", ".mp4"),
        ("gate", "always", "a section with the keys policy, threshold"),
    ],
)
def test_an_error_names_key_value_and_what_is_accepted(write, key, value, accepted):
    for path, overrides in ((None, {key: value}), (write(yaml.safe_dump(nest(key, value))), None)):
        message = error_of(path, overrides)
        assert message.startswith(f"{path}: {key}: " if path else f"{key}: ")
        written = {
            repr(value),
            repr(str(value)),
            repr(f".{value}"),
            repr([*map(str, value)] if value == [3] else value),
        }
        assert any(f"got {text}" in message for text in written)
        assert accepted in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        (["turn:host:port"], "turns:host[:port]; got 'turn:host:port'"),
        (["stun:host?transport=tcp"], "got 'stun:host?transport=tcp'"),
        (["stun:a", "turn:a:1", "turns:b"], "one TURN server; got stun:a, turn:a:1, turns:b"),
        (["turn:user:geheim@host"], "addresses without credentials"),
    ],
)
def test_stun_and_turn_servers_are_checked(urls, says):
    message = error_of(None, {"webrtc.ice_servers": urls})
    assert message.startswith("webrtc.ice_servers")
    assert says in message
    assert "geheim" not in message


def nest(dotted: str, value: object) -> dict[str, object]:
    *path, key = dotted.split(".")
    tree: dict[str, object] = {key: value}
    for step in reversed(path):
        tree = {step: tree}
    return tree


BAD_WEIGHTS = [
    {},
    {-0.1: 0.0, 1.0: 1.0},
    {0.0: 0.0, 1.1: 1.0},
    {0.0: -0.1, 1.0: 1.0},
    {0.0: 0.5, 1.0: 0.4},
    {0.0: 0.0, 0.5: 1.0, 0.9: 0.99},
    {0.0: 0.0, 1.0: float("inf")},
    {0.0: float("nan")},
    {float("nan"): 1.0},
]


@pytest.mark.parametrize("weights", BAD_WEIGHTS, ids=str)
def test_invalid_weights_are_refused(weights):
    message = error_of(None, {"fuse.weights": weights})
    assert message.startswith("fuse.weights")


def test_an_error_about_weights_names_them():
    message = error_of(None, {"fuse.weights": {0.0: 0.5, 1.0: 0.4}})
    assert "never fall" in message
    assert "0.4" in message


def test_weights_are_sorted():
    config = load_config(None, {"fuse.weights": {1: 2, 0: 0, "0.5": "1.5"}})
    assert list(config.fuse.weights.items()) == [(0.0, 0.0), (0.5, 1.5), (1.0, 2.0)]


def test_weights_may_be_equal():
    assert load_config(None, {"fuse.weights": {0.2: 1.0, 0.8: 1.0}}).fuse.weights == {0.2: 1.0, 0.8: 1.0}


def test_a_threshold_of_zero_is_a_threshold():
    assert load_config(None, {"gate.threshold": 0}).gate.threshold == 0.0


def test_units_may_be_below_min_units():
    """`min_units` means `units` where that is less."""
    config = load_config(None, {"select.units": 4})
    assert config.select.min_units > config.select.units


def test_a_configuration_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Config().models = "demo"


# --set


def test_assignments_are_yaml_whose_numbers_stay_text():
    assert parse_assignments(
        ["gate.policy=always", "select.units=64", "gate.threshold=0.5", "capture.realtime=true", "output.out=null"]
    ) == {
        "gate.policy": "always",
        "select.units": "64",
        "gate.threshold": "0.5",
        "capture.realtime": True,
        "output.out": None,
    }


def test_a_value_may_hold_anything():
    url = "rtsp://host/a?b=c"
    assert parse_assignments([f"capture.source={url}"]) == {"capture.source": url}
    assert parse_assignments(["capture.source=[1"]) == {"capture.source": "[1"}
    assert parse_assignments(["fuse.weights={0: 0, 1: 2}"]) == {"fuse.weights": {"0": "0", "1": "2"}}


def test_the_last_assignment_wins():
    assert parse_assignments(["models=deit", "models=demo"]) == {"models": "demo"}


@pytest.mark.parametrize("assignment", ["gate.policy", "=always", ""])
def test_an_invalid_assignment_names_the_accepted_form(assignment):
    with pytest.raises(UsageError, match=r"accepted: section\.key=value") as caught:
        parse_assignments([assignment])
    assert repr(assignment) in str(caught.value)


# Credentials

ADDRESS = "rtsp://viewer:geh'eim@host/x?key=geheim"


@pytest.mark.parametrize(
    "text",
    [
        f'cameras: [{{source: "{ADDRESS}"}}]',
        f'cameras: {{name: a, source: "{ADDRESS}"}}',
        f'cameras: ["{ADDRESS}"]',
        f'cameras: [{{name: a, source: ["{ADDRESS}"]}}]',
        f'cameras: [{{name: a, source: "{ADDRESS}"}}]\ncapture: {{source: "{ADDRESS}"}}',
        f'capture: "{ADDRESS}"',
        f'capture: {{source: "{ADDRESS}, read_timeout: 3s}}\n',
        f"capture: {{source: {ADDRESS}: 3}}\n",
    ],
)
def test_no_error_shows_a_password(write, text):
    message = error_of(write(text))
    assert "geh" not in message


def test_no_dump_and_no_refused_assignment_shows_a_password():
    camera = {"name": "a", "source": ADDRESS}
    for overrides in ({"capture.source": ADDRESS}, {"cameras": [camera]}, {"ship.server": ADDRESS}):
        dumped = dump_config(load_config(None, overrides))
        assert "rtsp://***@host/x" in dumped
        assert "geh" not in dumped
    with pytest.raises(UsageError, match=r"\*\*\*@host") as caught:
        parse_assignments([ADDRESS.partition("?")[0]])
    assert "geh" not in str(caught.value)


# Dumping


def test_the_defaults_survive_a_round_trip(write):
    assert load_config(write(dump_config(Config()))) == Config()


def test_every_changed_value_survives_a_round_trip(write):
    config = load_config(
        None,
        {
            "models": "demo",
            "threads": 3,
            "capture.source": "rtsp://host/stream",
            "capture.realtime": True,
            "capture.resize": "crop",
            "capture.open_timeout": "1500ms",
            "edge.checkpoint": "weights/edge.safetensors",
            "server.device": "cuda:1",
            "gate.threshold": 0.25,
            "budget.uplink": "0.3Mbit/s",
            "budget.window": "0.1s",
            "select.importance": "rollout",
            "encode.max_message": "64KiB",
            "ship.deadline": "2min",
            "fuse.rule": "server",
            "fuse.weights": {0.1: 0.2, 0.9: 0.7},
            "output.annotate": "out/run.MP4",
        },
    )
    assert load_config(write(dump_config(config))) == config


def test_no_limit_survives_a_round_trip(write):
    config = load_config(None, {"budget.uplink": "unlimited"})
    assert config.budget.uplink is None
    assert load_config(write(dump_config(config))).budget.uplink is None


def test_a_dump_holds_every_key():
    dumped = yaml.safe_load(dump_config(Config()))
    assert set(dumped) == set(Config.model_fields)
    assert all(set(dumped[name]) == set(type(getattr(Config(), name)).model_fields) for name in ("gate", "select"))


# What ships


def test_every_key_has_a_description():
    def fields(model):
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                assert inner.__doc__
                yield from fields(inner)
            else:
                yield name, field.description

    assert [name for name, description in fields(Config) if not description] == []


def test_every_example_configuration_is_valid():
    paths = [*CONFIGS.rglob("*.yaml"), *CONFIGS.rglob("*.yml")]
    assert [path for path in paths if not isinstance(load_config(path), Config)] == []


def test_a_path_that_begins_with_a_point_is_beside_its_file(tmp_path, monkeypatch):
    (tmp_path / "box").mkdir()
    file = tmp_path / "box" / "edge.yaml"
    file.write_text(
        "packed: ./models.pack\nheads: {gate: ./gate.head}\ncapture: {source: ./clip.mp4}\noutput: {out: run}\n"
    )
    config = load_config(file, {"output.annotate": "./a.mp4"})
    assert config.packed == tmp_path / "box" / "models.pack"
    assert config.head == tmp_path / "box" / "gate.head"
    assert config.capture.source == str(tmp_path / "box" / "clip.mp4")
    assert (config.output.out, config.output.annotate) == (Path("run"), Path("a.mp4"))
