"""The WebRTC links where they differ from other links: access, hostile peers, recovered losses, charges."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription

from sagelink.pipeline.budget.uplink_budget import UplinkBudget
from sagelink.pipeline.budget.wire_ledger import WireLedger
from sagelink.pipeline.config.link import WebRtcConfig
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.transport.bundle import encode_bundle
from sagelink.transport.link import CameraInfo
from sagelink.transport.webrtc.address import SignallingEndpoint, open_signalling_endpoint
from sagelink.transport.webrtc.edge import WebRtcEdgeLink
from sagelink.transport.webrtc.reassembly import Part, pack_part
from sagelink.transport.webrtc.server import WebRtcServerLink
from sagelink.transport.webrtc.signalling import Unreachable, exchange
from sagelink.transport.webrtc.wire_cost import WebRtcCostModel
from tests.certificates import self_signed
from tests.patience import PATIENCE_S

CAMERA_INFO = CameraInfo(14, 16, "0123", 5.0)
TOKEN = "a-token-of-some-length"  # noqa: S105


@contextlib.asynccontextmanager
async def serving(
    endpoint: SignallingEndpoint, **options: object
) -> AsyncIterator[tuple[WebRtcServerLink, SignallingEndpoint]]:
    async with WebRtcServerLink(endpoint, **options) as server:
        yield server, dataclasses.replace(endpoint, port=server.port)


def edge_link(
    endpoint: SignallingEndpoint,
    node: str = "node",
    budget: UplinkBudget | None = None,
    on_recovered: Callable[[str], None] = lambda _: None,
) -> WebRtcEdgeLink:
    ledger = WireLedger(budget or UplinkBudget(None, 1.0), time.monotonic)
    return WebRtcEdgeLink(endpoint, node, ["door"], CAMERA_INFO, wire_ledger=ledger, on_recovered=on_recovered)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def another_camera_unaffected(server: WebRtcServerLink, endpoint: SignallingEndpoint) -> AsyncIterator[None]:
    """Checks that a well-behaved camera gets its replies before and after the body."""
    async with edge_link(endpoint, "good") as edge:
        await edge.ready()

        async def check_reply(data: bytes) -> None:
            assert await edge.send("door", data) is None
            async for message in server.messages():
                if message.sender == "good/door":
                    await server.reply(message, message.data)
                    break
            assert await anext(edge.replies()) == ("door", data)

        await check_reply(b"before")
        yield
        await edge.ready()
        await check_reply(b"after")


async def post(endpoint: SignallingEndpoint, body: bytes, token: str | None = None) -> int:
    def go() -> int:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=PATIENCE_S)
        try:
            connection.request("POST", "/offer", body, {"Authorization": f"Bearer {token}"} if token else {})
            return connection.getresponse().status
        finally:
            connection.close()

    return await asyncio.to_thread(go)


async def test_cameras_are_listed_while_they_are_connected(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (server, address):
        async with edge_link(address) as edge:
            await edge.ready()
            await until(lambda: server.cameras == {"node/door": CAMERA_INFO})
        await until(lambda: server.cameras == {})


async def test_messages_leave_room_for_what_keeps_the_connection_alive(endpoint: SignallingEndpoint) -> None:
    budget = UplinkBudget(64_000, 10.0)
    async with serving(endpoint) as (_, address), edge_link(address, budget=budget) as edge:
        await edge.ready()
        now_s = time.monotonic()
        assert (budget.allowance(now_s) or 0) <= 640_000 - budget.window_bits(now_s) - 9 * 8 * 240


async def test_the_server_requires_its_token(endpoint: SignallingEndpoint) -> None:
    endpoint = dataclasses.replace(endpoint, token=TOKEN)
    async with serving(endpoint) as (server, address), another_camera_unaffected(server, address):
        assert await post(address, b"x") == 401
        assert await post(address, b"x", "another-token-of-this-length") == 401
        with pytest.raises(Unreachable, match="the token is not the server's"):
            await exchange(dataclasses.replace(address, token="wrong-wrong-wrong"), "offer")  # noqa: S106


async def test_a_certificate_for_another_host_is_reported(endpoint: SignallingEndpoint, tmp_path: Path) -> None:
    (right, key), (other, other_key) = (self_signed(tmp_path / host, host) for host in ("IP:127.0.0.1", "DNS:other"))
    for certificate, its_key, expected in ((right, key, None), (other, other_key, "IP address mismatch")):
        trusting = open_signalling_endpoint("webrtc+https://127.0.0.1:0", WebRtcConfig(ca=certificate), "url")
        async with serving(trusting, certificate=certificate, key=its_key) as (server, address):
            if expected is None:
                async with another_camera_unaffected(server, address):
                    pass
                continue
            with pytest.raises(Unreachable, match=expected):
                await exchange(address, "offer")
    with pytest.raises(UsageError, match="not a usable PEM file"):
        open_signalling_endpoint("webrtc+https://127.0.0.1:0", WebRtcConfig(ca=key), "url")


async def test_a_missing_tls_server_is_reported(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (_, address):
        trusting = open_signalling_endpoint(f"webrtc+https://127.0.0.1:{address.port}", WebRtcConfig(), "url")
        with pytest.raises(Unreachable, match=r"a server without a certificate is webrtc\+http://"):
            await exchange(trusting, "offer")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7"])  # noqa: S104
def test_a_reachable_address_requires_a_token(endpoint: SignallingEndpoint, host: str) -> None:
    with pytest.raises(UsageError, match="can be reached by others"):
        WebRtcServerLink(dataclasses.replace(endpoint, host=host))


@pytest.mark.parametrize("offer", [b"", b"rubbish", b"\xff\xfe", b"v=0\r\nm=application 9\r\n", b"v=0\r\n" * 1000])
async def test_a_malformed_offer_is_refused(endpoint: SignallingEndpoint, offer: bytes) -> None:
    async with serving(endpoint) as (server, address), another_camera_unaffected(server, address):
        assert await post(address, offer) == 400


async def test_an_offer_that_is_too_long_is_refused(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (server, address), another_camera_unaffected(server, address):
        assert await post(address, b"v" * 65_537) == 413


async def connect_with_channels(endpoint: SignallingEndpoint, channels: int) -> RTCPeerConnection:
    peer = RTCPeerConnection()
    for number in range(channels):
        peer.createDataChannel(f"channel {number}")
    await peer.setLocalDescription(await peer.createOffer())
    answer = await exchange(endpoint, peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    return peer


async def test_a_peer_that_opens_channels_is_disconnected(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (server, address), another_camera_unaffected(server, address):
        peer = await connect_with_channels(address, 100)
        assert len(server._sessions) == 2
        await until(lambda: len(server._sessions) == 1)
        await peer.close()


async def test_a_peer_that_sends_text_is_disconnected(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (server, address), another_camera_unaffected(server, address):
        peer = RTCPeerConnection()
        channel = peer.createDataChannel("evidence", negotiated=True, id=1)
        channel.add_listener("open", lambda: channel.send("hello"))
        await peer.setLocalDescription(await peer.createOffer())
        answer = await exchange(address, peer.localDescription.sdp)
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        assert len(server._sessions) == 2
        await until(lambda: len(server._sessions) == 1)
        await peer.close()


async def test_a_peer_that_never_connects_is_removed(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint, open_s=2.0) as (server, address), another_camera_unaffected(server, address):
        peer = RTCPeerConnection()
        peer.createDataChannel("x")
        await peer.setLocalDescription(await peer.createOffer())
        await exchange(address, peer.localDescription.sdp)
        assert len(server._sessions) == 2
        await until(lambda: len(server._sessions) == 1)
        await peer.close()


async def test_the_number_of_peers_is_limited(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint, max_peers=1) as (server, address), another_camera_unaffected(server, address):
        assert await post(address, b"v=0\r\n") == 503


async def test_a_silent_server_is_noticed_and_the_link_reconnects(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (_, address), edge_link(address) as edge:
        await edge.ready()
        edge._peer._connection.sctp._handle_data = _ignore  # as if the cable were cut
        await until(lambda: "silent" in (edge.refusal() or ""))
        await edge.ready()
        assert edge.refusal() is None


async def _ignore(_: bytes) -> None:
    pass


async def test_lost_parts_leave_the_other_parts_usable(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (server, address), edge_link(address) as edge:
        await edge.ready()
        send, sent = edge._peer.send_evidence, []

        def lose_the_second(data: bytes) -> bool:
            sent.append(data)
            return True if len(sent) == 2 else send(data)

        edge._peer.send_evidence = lose_the_second
        assert await edge.send("door", encode_bundle(9, [b"one", b"two", b"three"])) is None
        message = await anext(server.messages())
        assert (message.data, message.lost_parts) == (encode_bundle(0, [b"one", b"three"]), 1)


async def test_a_verdict_whose_first_copy_is_lost_arrives_and_is_counted(endpoint: SignallingEndpoint) -> None:
    recovered: list[str] = []
    async with serving(endpoint) as (server, address), edge_link(address, on_recovered=recovered.append) as edge:
        await edge.ready()
        (session,) = server._sessions.values()
        session._peer.send_evidence = lambda _: True
        assert await edge.send("door", b"data") is None
        assert await server.reply(await anext(server.messages()), b"verdict")
        assert await anext(edge.replies()) == ("door", b"verdict")
        assert "rescued" in recovered


@pytest.mark.parametrize("affordable", [True, False])
async def test_a_message_of_one_datagram_is_resent_if_the_budget_has_room(
    endpoint: SignallingEndpoint, affordable: bool
) -> None:
    recovered: list[str] = []
    budget = UplinkBudget(None, 1.0)
    async with (
        serving(endpoint) as (server, address),
        edge_link(address, budget=budget, on_recovered=recovered.append) as edge,
    ):
        await edge.ready()
        send, sent = edge._peer.send_evidence, []

        def lose_the_first(data: bytes) -> bool:
            sent.append(data)
            return True if len(sent) == 1 else send(data)

        edge._peer.send_evidence = lose_the_first
        assert await edge.send("door", b"first") is None
        if not affordable:
            budget.change_rate(8)
        (_, resend), *_ = edge._unanswered.values()
        await until(lambda: resend.when() < asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        if affordable:
            assert (await anext(server.messages())).data == b"first"
        assert sent == [pack_part(Part(0, 0, 0, 1, b"first"))] * (2 if affordable else 1)
        assert recovered == ["resent"] * affordable


async def test_an_answered_message_is_not_resent_and_a_duplicate_counts_once(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (server, address), edge_link(address) as edge:
        await edge.ready()
        for data in (b"one", b"two"):
            assert await edge.send("door", data) is None
            message = await anext(server.messages())
            assert message.data == data
            await server.reply(message, b"reply to " + data)
            assert await anext(edge.replies()) == ("door", b"reply to " + data)
        assert not edge._unanswered
        edge._resend("door", pack_part(Part(0, 1, 0, 1, b"two")), 800)
        await edge.ready()
        assert await edge.send("door", b"three") is None
        assert (await anext(server.messages())).data == b"three"


@pytest.mark.campaign
async def test_connecting_and_heartbeats_are_charged(endpoint: SignallingEndpoint) -> None:
    budget = UplinkBudget(None, 1.0)
    async with serving(endpoint) as (_, address), edge_link(address, budget=budget) as edge:
        await edge.ready()
        connecting_bits = budget.total_bits
        assert 8 * 3000 < connecting_bits <= WebRtcCostModel().connect_bits(300)
        await until(lambda: budget.total_bits > connecting_bits + 8 * 200)  # heartbeats and acknowledgements


async def test_a_connection_that_no_window_can_hold_is_refused_with_what_it_needs(endpoint: SignallingEndpoint) -> None:
    budget = UplinkBudget(4000, 1.0)
    async with serving(endpoint) as (_, address), edge_link(address, budget=budget) as edge:
        await until(lambda: "not connected yet" not in edge.refusal())
        assert re.search(r"a packet needs \d+ bits at once, and a window has 4000", edge.refusal())
    assert budget.total_bits == 0


async def test_a_replay_fails_without_a_server(endpoint: SignallingEndpoint) -> None:
    closed_port_endpoint = dataclasses.replace(endpoint, port=9)
    with pytest.raises(SagelinkError, match="Connection refused"):
        async with WebRtcEdgeLink(closed_port_endpoint, "node", ["door"], CAMERA_INFO, wire_ledger=None):
            pass


async def test_a_node_name_belongs_to_the_first_connected_peer(
    endpoint: SignallingEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(endpoint) as (server, address), edge_link(address) as first:
        await first.ready()
        await until(lambda: server.cameras == {"node/door": CAMERA_INFO})
        async with edge_link(address) as thief:
            await until(lambda: "the node name 'node' belongs to another connected peer" in (thief.refusal() or ""))
            assert "the server refuses this node" in caplog.text
            assert await first.send("door", b"evidence") is None
            await server.reply(await anext(server.messages()), b"verdict")
            assert await anext(first.replies()) == ("door", b"verdict")
            assert len(server.cameras) == 1


async def test_the_same_run_takes_its_name_back_at_once(endpoint: SignallingEndpoint) -> None:
    async with serving(endpoint) as (server, address), edge_link(address) as edge:
        await edge.ready()
        await until(lambda: server.cameras == {"node/door": CAMERA_INFO})
        (old,) = server._sessions.values()
        old._peer.run = asyncio.Event().wait  # the server does not notice the loss
        edge._peer.end("lost")
        await until(lambda: [session.node for session in server._sessions.values() if session is not old] == ["node"])
        await edge.ready()
        assert await edge.send("door", b"evidence") is None
        assert (await anext(server.messages())).data == b"evidence"
