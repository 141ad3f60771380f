"""Which servers are online, from their presence."""

from __future__ import annotations

from sagelink.transport.mqtt.known_servers import KnownServers


def test_no_server_is_online_only_where_the_broker_retains_presence() -> None:
    servers = KnownServers()
    servers.observe("test/a/presence", online=True)
    servers.observe("test/a/presence", online=False)
    assert not servers.none_online  # another server may have reported itself before this edge came
    servers.note_retained()
    assert servers.none_online
    servers.observe("test/b/presence", online=True)
    assert not servers.none_online


def test_a_new_connection_knows_nothing() -> None:
    servers = KnownServers()
    servers.note_retained()
    servers.observe("test/a/presence", online=False)
    assert servers.none_online
    servers.connected()
    assert not servers.none_online


def test_the_number_of_servers_is_limited() -> None:
    servers = KnownServers()
    for number in range(2000):
        servers.observe(f"test/{number:04}/presence", online=True)
    assert len(servers._online or ()) == 1000
