"""Which cameras are online, by the states that nodes and cameras publish."""

from __future__ import annotations

import pytest

from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.topics import encode_state

CAMERA_INFO = CameraInfo(14, 16, "0123", 5.0)
FIRST_RUN, SECOND_RUN = b"ab", b"cd"


def registry_of(*states: tuple[str, bytes], max_entries: int = 100) -> CameraRegistry:
    registry = CameraRegistry(max_entries)
    for address, payload in states:
        registry.update(address, payload)
    return registry


def camera(session: bytes = FIRST_RUN) -> bytes:
    return encode_state(session, True, CAMERA_INFO)


def node(session: bytes = FIRST_RUN, online: bool = True) -> bytes:
    return encode_state(session, online)


@pytest.mark.parametrize(
    ("states", "online"),
    [
        ([("n/door", camera()), ("n", node())], ["n/door"]),
        ([("n", node()), ("n/door", camera())], ["n/door"]),  # retained states may arrive in any order
        ([("n/door", camera())], []),
        ([("n", node())], []),
        ([("n/door", camera()), ("n", node(SECOND_RUN))], []),  # an earlier run left the camera behind
        ([("n/door", camera()), ("n", node()), ("n", node(online=False))], []),
        ([("n/door", camera()), ("n", node()), ("n", node(SECOND_RUN, online=False))], ["n/door"]),  # a late will
        ([("n/door", camera()), ("n", node()), ("n", b"")], []),
        ([("n/door", camera()), ("n", node()), ("n/door", b"garbage")], []),
        ([("n/door", camera()), ("n", node()), ("n/door", encode_state(FIRST_RUN, False, CAMERA_INFO))], []),
        ([("n/door", camera()), ("n/yard", camera()), ("n", node()), ("n/door", b"")], ["n/yard"]),
        ([("n/door", camera()), ("m/door", camera()), ("n", node()), ("m", node(SECOND_RUN))], ["n/door"]),
    ],
)
def test_online_cameras(states: list[tuple[str, bytes]], online: list[str]) -> None:
    registry = registry_of(*states)
    assert registry.online == dict.fromkeys(online, CAMERA_INFO)


def test_the_number_of_cameras_and_nodes_is_limited() -> None:
    states = [(f"{name}/door", camera()) for name in "abc"] + [(name, node()) for name in "abc"]
    registry = registry_of(*states, max_entries=2)
    assert sorted(registry.online) == ["a/door", "b/door"]
    registry.update("a/door", b"")
    registry.update("b/door", camera())
    registry.update("b/yard", camera())
    assert sorted(registry.online) == ["b/door", "b/yard"]
