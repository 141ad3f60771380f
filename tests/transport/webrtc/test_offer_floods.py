"""Offers of hostile peers: they keep nobody out, and make the server send little to others."""

from __future__ import annotations

import asyncio
import socket

from aiortc import RTCPeerConnection

from sagelink.transport.webrtc.address import SignallingEndpoint
from sagelink.transport.webrtc.server import _MAX_OPENING_PER_ADDRESS
from sagelink.transport.webrtc.signalling import exchange
from tests.patience import PATIENCE_S
from tests.transport.webrtc.test_links import edge_link, serving, until

ABORTED = 40


async def make_offer() -> str:
    """An offer of a peer that will not connect."""
    peer = RTCPeerConnection()
    peer.createDataChannel("x")
    await peer.setLocalDescription(await peer.createOffer())
    sdp = peer.localDescription.sdp
    await peer.close()
    return sdp


async def test_peers_that_never_connect_keep_nobody_out(endpoint: SignallingEndpoint) -> None:
    offer = await make_offer()
    async with serving(endpoint) as (server, address):
        for _ in range(ABORTED):
            await exchange(address, offer)
        await until(lambda: len(server._sessions) <= _MAX_OPENING_PER_ADDRESS)
        async with asyncio.timeout(PATIENCE_S), edge_link(address, "newcomer") as edge:
            await edge.ready()
            assert edge.refusal() is None


async def test_full_places_that_never_connect_are_freed(endpoint: SignallingEndpoint) -> None:
    offer = await make_offer()
    async with serving(endpoint, max_peers=2) as (_, address):
        for _ in range(2):
            await exchange(address, offer)
        async with asyncio.timeout(PATIENCE_S), edge_link(address, "newcomer") as edge:
            await edge.ready()
            assert edge.refusal() is None


async def test_an_offer_sends_few_packets_to_a_third_party(endpoint: SignallingEndpoint) -> None:
    offer = await make_offer()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        victim.bind(("0.0.0.0", 0))  # noqa: S104
        victim.settimeout(0.5)
        port = victim.getsockname()[1]
        candidates = [
            f"a=candidate:{number} 1 udp {number} 127.0.{number // 250}.{number % 250 + 1} {port} typ host\r\n"
            for number in range(450)
        ]
        head = offer.replace("a=end-of-candidates\r\n", "")
        head = "".join(line for line in head.splitlines(keepends=True) if not line.startswith("a=candidate"))
        async with serving(endpoint, open_s=3.0) as (_, address):
            await exchange(address, head + "".join(candidates) + "a=end-of-candidates\r\n")
            await asyncio.sleep(3)
        packets = 0
        try:
            while victim.recv(2000):
                packets += 1
        except TimeoutError:
            pass
    assert packets < 150
