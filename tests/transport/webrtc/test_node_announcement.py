"""A node's announcement: round trip, and malformed ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.link import CameraInfo
from sagelink.transport.webrtc.node_announcement import decode_state, encode_state

CAMERA_INFO = CameraInfo(14, 16, "0123456789abcdef", 1.0)


def test_an_announcement_survives_the_round_trip():
    state = encode_state(CAMERA_INFO, ["door", "yard"], True, "secret")
    assert decode_state(state) == (CAMERA_INFO, ["door", "yard"], "secret")
    assert decode_state(encode_state(CAMERA_INFO, ["door"], False, "secret")) is None


@pytest.mark.parametrize(
    "change",
    [
        {"side": "x"},
        {"side": float("inf")},
        {"cameras": 5},
        {"deadline_s": 0},
        {"deadline_s": "inf"},
        {"online": "yes"},
        {"classes": "x" * 20_000},
    ],
)
def test_a_malformed_announcement_is_none(change):
    state = json.loads(encode_state(CAMERA_INFO, ["door"], True, "secret")) | change
    assert decode_state(json.dumps(state).encode()) is None


@given(st.binary(max_size=60) | st.recursive(st.none() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_random_bytes_are_none(data):
    assert decode_state(data) is None
