"""Which cameras are online, by the states that nodes and cameras publish."""

from __future__ import annotations

import pytest

from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.topics import encode_state

CAMERA_INFO = CameraInfo(14, 16, "0123", 5.0)
FIRST_RUN, SECOND_RUN = b"ab", b"cd"


def registry_of(*states: tuple[str, bytes], **limits: int) -> CameraRegistry:
    registry = CameraRegistry(**limits)
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


def test_the_session_of_an_online_camera() -> None:
    registry = registry_of(("n/door", camera()), ("n", node()), ("n/yard", camera(SECOND_RUN)))
    assert [registry.session_of(f"n/{name}") for name in ("door", "yard", "roof")] == [FIRST_RUN.hex(), None, None]


def test_every_camera_of_many_nodes_is_known() -> None:
    cameras = [(f"node{index}/camera{number}", camera()) for index in range(100) for number in range(50)]
    registry = registry_of(*cameras, *((f"node{index}", node()) for index in range(100)))
    assert len(registry.online) == 5000


def test_a_node_with_many_cameras_has_a_limit_and_takes_no_room_from_others() -> None:
    invented = [("big", node()), *((f"big/camera{number}", camera()) for number in range(100))]
    registry = registry_of(*invented, max_node_bytes=8000, max_bytes=14_000)
    assert 5 <= len(registry.online) <= 10
    for index in range(8):
        registry.update(f"small{index}", node())
        registry.update(f"small{index}/door", camera())
    assert [f"small{index}/door" in registry.online for index in range(8)] == [True] * 8
    assert len(registry.online) < 16


def test_memory_of_nodes_that_leave_is_freed() -> None:
    registry = registry_of(*((f"n/camera{number}", camera()) for number in range(9)), ("n", node()))
    for number in range(9):
        registry.update(f"n/camera{number}", b"")
    registry.update("n", b"")
    assert (registry.online, registry._nodes, registry._size_bytes) == ({}, {}, 0)
