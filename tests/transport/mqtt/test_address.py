"""The broker's address, certificates and credentials; no secret appears in an error or a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagelink.pipeline.config.link import MqttConfig
from sagelink.pipeline.errors import UsageError
from sagelink.transport.mqtt.address import ENV_PASSWORD, ENV_USERNAME, open_broker, parse_url


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_USERNAME, raising=False)
    monkeypatch.delenv(ENV_PASSWORD, raising=False)


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("mqtt://broker", ("mqtt", (("broker", 1883),))),
        ("mqtts://broker/", ("mqtts", (("broker", 8883),))),
        ("mqtt://10.0.0.1:18830", ("mqtt", (("10.0.0.1", 18830),))),
        ("mqtts://[::1]:1", ("mqtts", (("::1", 1),))),
        ("mqtts://a,[::1]:1,b:2", ("mqtts", (("a", 8883), ("::1", 1), ("b", 2)))),
        ("wss://a,b:444/mqtt", ("wss", (("a", 443), ("b", 444)))),
    ],
)
def test_valid_addresses(url, parsed):
    assert parse_url(url, "ship.server") == parsed


@pytest.mark.parametrize(
    "url",
    [
        *("", "broker", "broker:1883", "http://broker", "mqtt://", "mqtt://b:port", "mqtt://b:0", "mqtt://b/topic"),
        *("mqtt://b?x=1", "mqtt://b c", "a,b", "mqtt://a,b/topic"),
    ],
)
def test_invalid_addresses(url):
    with pytest.raises(UsageError, match="ship.server.*accepted: mqtt://host"):
        parse_url(url, "ship.server")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mqtt://a,,b", "address ''.*accepted: mqtt://host"),
        ("mqtt://a,b:port", "address 'b:port'.*accepted: mqtt://host"),
        ("mqtt://a, b", "address ' b'.*accepted: mqtt://host"),
        ("mqtt://a,mqtt://b", "address.*accepted: mqtt://host"),
        ("mqtt://a,b,a:1883", "address 'a:1883'.*an address twice"),
        ("mqtt://" + ",".join("abcdefghijklmnopq"), "17 addresses; accepted: at most 16"),
    ],
)
def test_the_wrong_address_of_a_list_is_named(url, says):
    with pytest.raises(UsageError, match=f"ship.server.*{says}"):
        parse_url(url, "ship.server")


@pytest.mark.parametrize(
    "url", ["mqtt://me:hunter2@broker", "mqtt://me@broker", "mqtt://:hunter2@broker:1", "mqtt://a,me:hunt,er2@b"]
)
def test_a_url_with_credentials_is_refused_and_not_repeated(url):
    with pytest.raises(UsageError, match=ENV_PASSWORD) as error:
        parse_url(url, "ship.server")
    assert "er2" not in str(error.value)


def test_credentials_from_a_file(tmp_path: Path):
    (tmp_path / "password").write_text("hunter2\n")
    config = MqttConfig(username="me", password_file=tmp_path / "password")
    broker = open_broker("mqtt://broker", config, "ship.server")
    assert (broker.username, broker.password) == ("me", "hunter2")
    assert "hunter2" not in repr(broker) + broker.url


def test_the_environment_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENV_USERNAME, "you")
    monkeypatch.setenv(ENV_PASSWORD, "other")
    config = MqttConfig(username="me", password_file=tmp_path / "not there")
    broker = open_broker("mqtt://broker", config, "ship.server")
    assert (broker.username, broker.password) == ("you", "other")


@pytest.mark.parametrize(
    ("url", "settings", "says"),
    [
        ("mqtt://b", {"ca": "ca.pem"}, "mqtt.ca is set, but ship.server is mqtt://"),
        ("mqtts://b", {"ca": "not there"}, "mqtt.ca: 'not there' is not a file"),
        ("mqtts://b", {"certificate": "c.pem"}, "belong together"),
        ("mqtts://b", {"ca": "garbage.pem"}, "not usable PEM files"),
        ("mqtt://b", {"username": "me", "password_file": "not there"}, "password_file 'not there' cannot be read"),
        ("mqtt://b", {"password_file": "garbage.pem"}, "an MQTT password is set, but no user name"),
    ],
)
def test_contradicting_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url, settings, says):
    monkeypatch.chdir(tmp_path)
    Path("garbage.pem").write_text("garbage")
    with pytest.raises(UsageError, match=says):
        open_broker(url, MqttConfig(**settings), "ship.server")


@pytest.mark.parametrize("settings", [{"prefix": "a/#"}, {"prefix": "/a"}, {"prefix": "$SYS"}, {"node": "a/b"}])
def test_invalid_topic_levels(settings):
    with pytest.raises(ValueError, match="String should match pattern"):
        MqttConfig(**settings)
