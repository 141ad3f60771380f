"""Topic aliases of a connection."""

from __future__ import annotations

from sagelink.transport.mqtt.topic_aliases import TopicAliases


def test_a_broker_without_aliases_gets_none() -> None:
    aliases = TopicAliases(["door"])
    aliases.connected(0)
    aliases.taken("door")
    assert aliases.number("door") is None
    assert not aliases.is_announced("door")


def test_cameras_beyond_the_brokers_maximum_have_none() -> None:
    aliases = TopicAliases(["a", "b", "c"])
    aliases.connected(2)
    assert [aliases.number(camera) for camera in "abc"] == [1, 2, None]
    assert aliases.number("unannounced") is None


def test_an_alias_is_announced_by_a_message_that_the_broker_took_and_forgotten_with_the_connection() -> None:
    aliases = TopicAliases(["a", "b"])
    aliases.connected(10)
    assert not aliases.is_announced("a")
    aliases.taken("a")
    assert aliases.is_announced("a")
    assert not aliases.is_announced("b")
    aliases.connected(10)
    assert not aliases.is_announced("a")
