"""Topic names, and the states that nodes and cameras retain."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.topics import NodeState, Topics, decode_state, encode_state

CAMERA_INFO = CameraInfo(14, 16, "0123456789abcdef", 1.0)


def test_the_topic_table():
    topics = Topics("site/north")
    assert topics.evidence("gate/door") == "site/north/gate/door/evidence"
    assert topics.verdict("gate/+") == "site/north/gate/+/verdict"
    assert topics.state("gate/door") == "site/north/gate/door/state"
    assert topics.state("gate") == "site/north/gate/state"
    assert topics.budget("gate") == "site/north/gate/budget/set"
    assert topics.address_of("site/north/gate/door/evidence") == "gate/door"
    assert topics.address_of("site/north/gate/state") == "gate"


def test_a_state_survives_the_round_trip():
    assert decode_state(encode_state(b"ab", True, CAMERA_INFO), of_camera=True) == NodeState("6162", True, CAMERA_INFO)
    assert decode_state(encode_state(b"ab", True), of_camera=False) == NodeState("6162", True)
    assert decode_state(encode_state(b"ab", False, CAMERA_INFO), of_camera=True) == NodeState("6162", False)
    assert decode_state(encode_state(b"ab", True), of_camera=True) is None  # an online camera must carry a CameraInfo


@pytest.mark.parametrize(
    "change",
    [
        {"side": "x"},
        {"side": float("inf")},
        {"patch_size": None},
        {"deadline_s": 0},
        {"deadline_s": "inf"},
        {"session": None, "classes": {}, "side": []},
        {"classes": "x" * 20_000},
    ],
)
def test_a_malformed_state_is_none(change):
    state = json.loads(encode_state(b"ab", True, CAMERA_INFO)) | change
    assert decode_state(json.dumps(state).encode(), of_camera=True) is None


@given(
    st.binary(max_size=60) | st.recursive(st.none() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode()),
    st.booleans(),
)
def test_random_bytes_are_none(data, of_camera):
    assert decode_state(data, of_camera) is None
