"""The uplink bits of an edge's messages."""

from __future__ import annotations

from sagelink.transport.message_auth import EXTRA_BYTES
from sagelink.transport.mqtt.edge_costs import EdgeCosts
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.mqtt.wire_cost import MqttCostModel


def costs(mac: bool = False, v5: bool = True) -> EdgeCosts:
    return EdgeCosts(Topics("test"), "node", MqttCostModel(), mac, lambda: v5)


def test_a_mac_costs_its_bytes_in_every_message() -> None:
    plain, sealed = costs(), costs(mac=True)
    assert sealed.evidence_bits("door", 100) == plain.evidence_bits("door", 100 + EXTRA_BYTES)
    assert sealed.head_part_bits(100) == plain.head_part_bits(100 + EXTRA_BYTES)
    assert sealed.picture_bits("door", "e", 100) == plain.picture_bits("door", "e", 100 + EXTRA_BYTES)


def test_mqtt_5_costs_its_properties() -> None:
    assert costs().evidence_bytes("door", 100) - costs(v5=False).evidence_bytes("door", 100) == 6
    assert costs().event_bits("door", 100) - costs(v5=False).event_bits("door", 100) == 8


def test_the_longest_message_fills_the_packet() -> None:
    for max_packet_bytes in (300, 5000, 100_000):
        longest = costs().max_evidence_bytes("door", max_packet_bytes)
        assert max_packet_bytes - 1 <= costs().evidence_bytes("door", longest) <= max_packet_bytes
    assert costs().max_evidence_bytes("door", 10) == 0


def test_a_connection_pays_for_its_announcements() -> None:
    states = {"test/node/state": b"x" * 50, "test/node/door/state": b"x" * 200}
    assert costs().connect_bits(0, states) > costs().connect_bits(0, {}) + 8 * 250
