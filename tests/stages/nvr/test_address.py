"""Addresses of event sources."""

from __future__ import annotations

import pytest

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from sagelink.stages.nvr.address import event_address, is_event_source
from sagelink.stages.nvr.open import check_event_sources, open_event_capture


@pytest.mark.parametrize(
    ("source", "kind", "broker", "path"),
    [
        ("frigate:mqtt://host", "frigate", "mqtt://host", ""),
        ("frigate:mqtts://host:8883/front_door", "frigate", "mqtts://host:8883", "front_door"),
        ("mqtt-snapshots:mqtt://[::1]:1883/a/+/b", "mqtt-snapshots", "mqtt://[::1]:1883", "a/+/b"),
        ("mqtt-snapshots:mqtt://host/a/#", "mqtt-snapshots", "mqtt://host", "a/#"),
    ],
)
def test_accepted(source, kind, broker, path):
    assert is_event_source(source)
    address = event_address(source)
    assert (address.kind, address.broker, address.path) == (kind, broker, path)


@pytest.mark.parametrize(
    "source",
    [
        *("frigate:", "frigate:host", "frigate:http://host", "frigate:mqtt://", "frigate:mqtt://host/a/b"),
        *("frigate:mqtt://host/+", "mqtt-snapshots:mqtt://host", "mqtt-snapshots:mqtt://host/"),
        *("mqtt-snapshots:mqtt://host/a#", "mqtt-snapshots:mqtt://host/#/a", "mqtt-snapshots:mqtt://host/a+/b"),
    ],
)
def test_refused(source):
    with pytest.raises(UsageError, match=r"accepted: (frigate|mqtt-snapshots):mqtt://host"):
        event_address(source)


def camera(source: str, name: str = "yard", **options) -> CameraConfig:
    return CameraConfig(name=name, source=source, **options)


def test_two_sources_of_the_same_events_are_refused():
    check_event_sources([camera("frigate:mqtt://h/yard"), camera("frigate:mqtt://h/gate", "gate"), camera("0", "web")])
    for second in ("frigate:mqtt://h/yard", "frigate:mqtt://h"):
        with pytest.raises(UsageError, match="the same events"):
            check_event_sources([camera("frigate:mqtt://h/yard"), camera(second, "gate")])


def test_settings_that_contradict_are_refused(monkeypatch):
    def opened(source="frigate:mqtt://h", options=(), **changes):
        config = load_config(None, {"capture.source": "0", **{f"frigate.{key}": value for key, value in options}})
        return open_event_capture(config, camera(source, **changes))

    with pytest.raises(UsageError, match=r"frigate.url is empty"):
        opened()
    url = ("url", "http://frigate:5000")
    with pytest.raises(UsageError, match=r"frigate.crop: false"):
        opened(options=[url], roi=(0, 0, 0.5, 0.5))
    opened(options=[url, ("crop", "false")], roi=(0, 0, 0.5, 0.5))
    opened(options=[("pictures", "mqtt")])
    for bad in ("frigate:5000", "ftp://frigate", "http://user:secret@frigate"):
        with pytest.raises(UsageError, match=r"frigate.url") as error:
            opened(options=[("url", bad)])
        assert "secret" not in str(error.value)
    with pytest.raises(UsageError, match="credentials"):
        opened("frigate:mqtt://user:secret@h", [url])


def test_frigate_has_its_own_user(monkeypatch, tmp_path):
    monkeypatch.setenv("SAGELINK_MQTT_USERNAME", "uplink")
    monkeypatch.setenv("SAGELINK_MQTT_PASSWORD", "far")
    (tmp_path / "password").write_text("near\n")
    options = {"frigate.url": "http://f", "frigate.username": "local"}
    options |= {"frigate.password_file": str(tmp_path / "password"), "capture.source": "0"}
    capture = open_event_capture(load_config(None, options), camera("frigate:mqtt://h"))
    broker = capture._connection._broker
    assert (broker.username, broker.password) == ("local", "near")
