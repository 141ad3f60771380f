"""The estimated cost of a message and of a connection."""

from __future__ import annotations

import pytest

from sagelink.transport.header_sizes import SEGMENT
from sagelink.transport.mqtt.wire_cost import MqttCostModel, varint_bytes


def test_a_small_message_byte_by_byte():
    """Type and length, topic, packet id, properties, payload; 66 bytes a packet, and an acknowledgement of 78, which
    may report a duplicate."""
    assert MqttCostModel().publish_bits(21, 60, 6) == 8 * (1 + 1 + 2 + 21 + 2 + 6 + 60 + 66 + 78)
    assert MqttCostModel(ipv6=True).publish_bits(21, 60, 6) == 8 * (93 + 86 + 98)
    assert MqttCostModel(tls="TLSv1.3").publish_bits(21, 60, 6) == 8 * (93 + 22 + 66 + 78)
    assert MqttCostModel(tls="TLSv1.2").publish_bits(21, 60, 6) == 8 * (93 + 29 + 66 + 78)


def test_one_byte_more_than_a_segment_costs_a_packet():
    model = MqttCostModel()
    one, two = (model.packet_bits(size, acks=0) for size in (SEGMENT, SEGMENT + 1))
    assert (one, two) == (8 * (SEGMENT + 66), 8 * (SEGMENT + 1 + 2 * 66))


@pytest.mark.parametrize(("number", "size"), [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_152, 4)])
def test_bytes_of_a_variable_byte_integer(number, size):
    assert varint_bytes(number) == size


def test_a_connection_is_estimated_with_its_certificates():
    plain, tls = MqttCostModel(), MqttCostModel(tls="TLSv1.3")
    assert plain.connect_bits(0) < tls.connect_bits(0) < tls.connect_bits(4000) - 8 * 4000
