"""The estimated cost of a message, and its correction by the kernel's counters."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.transport.mqtt.wire_cost import SEGMENT, MqttCostModel, counted_bits, varint_bytes
from sagelink.transport.wire_cost import WireCostAudit


def test_a_small_message_byte_by_byte():
    """Type and length, topic, packet id, properties, payload; 66 bytes a packet, two of them acknowledgements."""
    assert MqttCostModel().publish_bits(21, 60, 6) == 8 * (1 + 1 + 2 + 21 + 2 + 6 + 60 + 3 * 66)
    assert MqttCostModel(ipv6=True).publish_bits(21, 60, 6) == 8 * (93 + 3 * 86)
    assert MqttCostModel(tls=True).publish_bits(21, 60, 6) == 8 * (93 + 22 + 3 * 66)


def test_one_byte_more_than_a_segment_costs_a_packet():
    model = MqttCostModel()
    one, two = (model.packet_bits(size, acks=0) for size in (SEGMENT, SEGMENT + 1))
    assert (one, two) == (8 * (SEGMENT + 66), 8 * (SEGMENT + 1 + 2 * 66))


@pytest.mark.parametrize(("number", "size"), [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_152, 4)])
def test_bytes_of_a_variable_byte_integer(number, size):
    assert varint_bytes(number) == size


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5000), st.integers(0, 5000)), max_size=60))
def test_all_counted_bits_are_charged(steps):
    audit, now_s, charged, counted = WireCostAudit(), 0.0, 0, 0
    for wait_s, record_charge, sent in steps:
        now_s += wait_s
        audit.record_charge(now_s, record_charge)
        charged += record_charge
        counted += sent
        charged += audit.record_count(now_s, counted)
        assert charged >= counted


def test_the_surplus_of_an_estimate_expires():
    audit = WireCostAudit()
    audit.record_charge(0.0, 1000)
    assert audit.record_count(1.0, 900) == 0
    assert audit.record_count(5.0, 950) == 0  # may still be on its way
    assert audit.record_count(20.0, 1000) == 50  # long after: must be a retransmission


def test_a_message_that_is_sent_slowly_is_charged_once():
    audit = WireCostAudit()
    audit.record_charge(0.0, 1000)
    assert [audit.record_count(second, 125 * second) for second in range(1, 9)] == [0] * 8


def test_the_kernel_counts_sent_bytes_and_segments():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            before = counted_bits(client, 66)
            if before is None:
                pytest.skip("this kernel does not count")
            client.sendall(b"x" * 1000)
            assert server.recv(1000, socket.MSG_WAITALL) == b"x" * 1000
            assert counted_bits(client, 66) == before + 8 * (1000 + 66)
            server.close()
        assert counted_bits(client, 66) is None  # closed


def test_a_kernel_without_the_counters():
    class Old:
        def getsockopt(self, *_: int) -> bytes:
            return struct.pack("=10I", *range(10))

    assert counted_bits(Old(), 66) is None
