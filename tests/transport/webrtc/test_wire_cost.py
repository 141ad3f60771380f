"""The charged bits of a message in parts are never below the bits of its real datagrams, whatever the splitter does.

The splitter and its callers agree on how many datagrams a message of some size may have: `wire.max_datagrams`. The
price by the size alone is an estimate.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sagelink.pipeline.types import OperatingPoint, Units
from sagelink.stages.packetize import Splitter
from sagelink.transport.bundle import MAX_PARTS, PART_BYTES, encode_bundle, max_datagrams, parts_of
from sagelink.transport.codecs import Canvas
from sagelink.transport.webrtc.reassembly import Part, pack_part
from sagelink.transport.webrtc.wire_cost import WebRtcCostModel

CANVAS = Canvas(14, 2)
PICTURE = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
ACKNOWLEDGEMENTS = 1  # of the verdict, which the server sends twice


def sent_bits(message: bytes, ip_header: int) -> int:
    """Bits of the datagrams of a message and of the edge's acknowledgements, header by header."""
    headers = 14 + ip_header + 8 + (13 + 8 + 16) + 12  # Ethernet, IP, UDP, DTLS, SCTP
    parts = parts_of(message)
    datagrams = [len(pack_part(Part(0, 1, i, len(parts), part))) for i, part in enumerate(parts)]
    assert max(datagrams) <= PART_BYTES + 5
    data_bytes = sum(headers + 16 + size + -size % 4 for size in datagrams)  # a DATA chunk is padded to four bytes
    return 8 * (data_bytes + ACKNOWLEDGEMENTS * (headers + 16 + 4))  # a SACK chunk with one gap


@pytest.mark.parametrize("codec", ["avif", "raw-zstd"])
@given(
    expected_bytes=st.floats(PART_BYTES, 40_000),
    bytes_per_unit=st.floats(0, 120),
    seed=st.integers(0, 2**16),
    unit_count=st.integers(1, 196),
)
@example(expected_bytes=1200.0, bytes_per_unit=3.0, seed=0, unit_count=196)  # two parts that would fit one datagram
@example(expected_bytes=20_000.0, bytes_per_unit=10.0, seed=0, unit_count=196)  # many short parts
def test_the_charge_covers_every_split(
    codec: str, expected_bytes: float, bytes_per_unit: float, seed: int, unit_count: int
) -> None:
    rng = np.random.default_rng(seed)
    unit_bytes = rng.uniform(0, 2 * bytes_per_unit, 196)

    def code(units: Units, _: OperatingPoint) -> bytes:
        return bytes(25 + int(unit_bytes[units].sum()))

    order = rng.permutation(196)[:unit_count]
    point = OperatingPoint(codec, unit_count, 28, 0)
    parts = Splitter(PICTURE, CANVAS, PART_BYTES).split(order, point, expected_bytes, code)
    if parts is None:
        return
    message = encode_bundle(1, parts)
    assert len(parts) <= min(MAX_PARTS, max_datagrams(len(message)))
    for ipv6, ip_header in ((False, 20), (True, 40)):
        bits = WebRtcCostModel(ipv6=ipv6).parts_bits(sum(map(len, parts)), len(parts))
        assert bits >= sent_bits(message, ip_header)


@given(st.integers(0, PART_BYTES), st.booleans())
def test_the_charge_covers_a_message_of_one_datagram(size: int, ipv6: bool) -> None:
    charged = WebRtcCostModel(ipv6=ipv6).message_bits(size)
    assert charged >= sent_bits(bytes(size), 40 if ipv6 else 20)


def test_the_number_of_datagrams_never_decreases_with_the_size() -> None:
    counts = [max_datagrams(size) for size in range(20_000)]
    assert counts == sorted(counts)
    assert counts[0] == counts[PART_BYTES] == 1
