"""The broker's limit of a packet, announced or learned."""

from __future__ import annotations

from sagelink.transport.mqtt.packet_limit import UNLIMITED, PacketLimit


def test_the_announced_limit_is_used_for_its_connection():
    limit = PacketLimit()
    limit.connected(600)
    assert limit.max_packet_bytes == 600
    limit.sent(500, 0.0)
    assert not limit.disconnected(0.1)
    limit.connected(None)
    assert limit.max_packet_bytes == UNLIMITED


def lose(limit: PacketLimit, packet_bytes: int, after_s: float = 0.1) -> bool:
    limit.connected(None)
    limit.sent(packet_bytes, 0.0)
    return limit.disconnected(after_s)


def test_two_losses_after_a_long_packet_halve_the_limit():
    limit = PacketLimit()
    assert [lose(limit, 4000) for _ in range(2)] == [False, True]
    assert limit.max_packet_bytes == 2000
    assert lose(limit, 2000)
    assert limit.max_packet_bytes == 1000
    limit.sent(900, 0.0)
    limit.acknowledged(900)
    assert [lose(limit, 1000) for _ in range(2)] == [False, True]
    assert limit.max_packet_bytes == 900


def test_a_packet_that_was_accepted_before_is_no_suspect():
    limit = PacketLimit()
    limit.connected(None)
    limit.sent(4000, 0.0)
    limit.acknowledged(4000)
    assert not any(lose(limit, size) for size in (4000, 3000, 4000, 100))
    assert limit.max_packet_bytes == UNLIMITED


def test_a_loss_long_after_the_packet_or_only_one_is_no_sign():
    limit = PacketLimit()
    assert not lose(limit, 4000)
    assert not lose(limit, 4000, after_s=30.0)
    assert limit.max_packet_bytes == UNLIMITED
