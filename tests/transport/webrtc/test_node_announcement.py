"""A node's announcement: round trip, and malformed ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.link import CameraInfo
from sagelink.transport.webrtc.node_announcement import decode_state, encode_state

CAMERA_INFO = CameraInfo(14, 16, "0123456789abcdef", 1.0)


def test_an_announcement_survives_the_round_trip():
    yard = replace(CAMERA_INFO, heads=("0" * 32, "f" * 32), earlier_heads=("a" * 32,))
    cameras = {"door": CAMERA_INFO, "yard": yard}
    assert decode_state(encode_state(cameras, True, "secret")) == (cameras, "secret")
    assert decode_state(encode_state({"door": CAMERA_INFO}, False, "secret")) is None


@pytest.mark.parametrize(
    "change",
    [
        {"side": "x"},
        {"side": float("inf")},
        {"cameras": 5},
        {"deadline_s": 0},
        {"deadline_s": "inf"},
        {"online": "yes"},
        {"classes": "x" * 40_000},
        {"camera_heads": {"door": {"heads": ["0" * 30]}}},
        {"camera_heads": {"door": {"earlier_heads": ["0" * 30]}}},
        {"camera_heads": {"door": {"heads": ["0" * 32] * 17}}},
    ],
)
def test_a_malformed_announcement_is_none(change):
    state = json.loads(encode_state({"door": CAMERA_INFO}, True, "secret")) | change
    assert decode_state(json.dumps(state).encode()) is None


@given(st.binary(max_size=60) | st.recursive(st.none() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_random_bytes_are_none(data):
    assert decode_state(data) is None
