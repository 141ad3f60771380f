"""The WebRTC links where they differ from others: who is let in, what a hostile peer gets, what is charged."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription

from sagelink.pipeline.config import WebRtcConfig
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.transport.link import CameraInfo
from sagelink.transport.webrtc import edge_session as guest_module
from sagelink.transport.webrtc.address import SignallingEndpoint, open_signalling_endpoint
from sagelink.transport.webrtc.datagrams import Part, pack_part
from sagelink.transport.webrtc.edge import WebRtcEdgeLink
from sagelink.transport.webrtc.server import WebRtcServerLink
from sagelink.transport.webrtc.signalling import Unreachable, exchange
from sagelink.transport.webrtc.wire_cost import WebRtcCostModel
from sagelink.transport.wire import encode_bundle
from tests.certificates import self_signed

CAMERA_INFO = CameraInfo(14, 16, "0123", 5.0)
TOKEN = "a-token-of-some-length"  # noqa: S105


@contextlib.asynccontextmanager
async def serving(
    at: SignallingEndpoint, **options: object
) -> AsyncIterator[tuple[WebRtcServerLink, SignallingEndpoint]]:
    async with WebRtcServerLink(at, **options) as server:
        yield server, dataclasses.replace(at, port=server.port)


def edge_link(
    at: SignallingEndpoint,
    node: str = "node",
    charge_overhead: Callable[[int], bool] = lambda _: True,
    on_recovered: Callable[[str], None] = lambda _: None,
) -> WebRtcEdgeLink:
    return WebRtcEdgeLink(at, node, ["door"], CAMERA_INFO, charge_overhead=charge_overhead, on_recovered=on_recovered)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def another_camera_goes_on(server: WebRtcServerLink, at: SignallingEndpoint) -> AsyncIterator[None]:
    """A good camera, which is answered before and after what the body does."""
    async with edge_link(at, "good") as edge:
        await edge.ready()

        async def is_answered(data: bytes) -> None:
            assert await edge.send("door", data) is None
            async for message in server.messages():
                if message.sender == "good/door":
                    await server.reply(message, message.data)
                    break
            assert await anext(edge.replies()) == ("door", data)

        await is_answered(b"before")
        yield
        await edge.ready()
        await is_answered(b"after")


async def post(at: SignallingEndpoint, body: bytes, token: str | None = None) -> int:
    def go() -> int:
        connection = http.client.HTTPConnection(at.host, at.port, timeout=10)
        try:
            connection.request("POST", "/offer", body, {"Authorization": f"Bearer {token}"} if token else {})
            return connection.getresponse().status
        finally:
            connection.close()

    return await asyncio.to_thread(go)


async def test_cameras_are_known_while_they_are_there(at: SignallingEndpoint) -> None:
    async with serving(at) as (server, there):
        async with edge_link(there) as edge:
            await edge.ready()
            await until(lambda: server.cameras == {"node/door": CAMERA_INFO})
        await until(lambda: server.cameras == {})


async def test_a_token_is_wanted_and_shown(at: SignallingEndpoint) -> None:
    at = dataclasses.replace(at, token=TOKEN)
    async with serving(at) as (server, there), another_camera_goes_on(server, there):
        assert await post(there, b"x") == 401
        assert await post(there, b"x", "another-token-of-this-length") == 401
        with pytest.raises(Unreachable, match="another token than the server's"):
            await exchange(dataclasses.replace(there, token="wrong-wrong-wrong"), "offer")  # noqa: S106


async def test_a_certificate_for_another_host_is_told(at: SignallingEndpoint, tmp_path: Path) -> None:
    (right, key), (other, other_key) = (self_signed(tmp_path / host, host) for host in ("IP:127.0.0.1", "DNS:other"))
    for certificate, its_key, says in ((right, key, None), (other, other_key, "IP address mismatch")):
        trusting = open_signalling_endpoint("webrtc+https://127.0.0.1:0", WebRtcConfig(ca=certificate), "url")
        async with serving(trusting, certificate=certificate, key=its_key) as (server, there):
            if says is None:
                async with another_camera_goes_on(server, there):
                    pass
                continue
            with pytest.raises(Unreachable, match=says):
                await exchange(there, "offer")
    with pytest.raises(UsageError, match="not a usable PEM file"):
        open_signalling_endpoint("webrtc+https://127.0.0.1:0", WebRtcConfig(ca=key), "url")


async def test_who_expects_tls_is_told_that_there_is_none(at: SignallingEndpoint) -> None:
    async with serving(at) as (_, there):
        trusting = open_signalling_endpoint(f"webrtc+https://127.0.0.1:{there.port}", WebRtcConfig(), "url")
        with pytest.raises(Unreachable, match=r"a server without a certificate is webrtc\+http://"):
            await exchange(trusting, "offer")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7"])  # noqa: S104
def test_others_are_not_served_without_a_token(at: SignallingEndpoint, host: str) -> None:
    with pytest.raises(UsageError, match="can be reached by others"):
        WebRtcServerLink(dataclasses.replace(at, host=host))


@pytest.mark.parametrize("offer", [b"", b"rubbish", b"\xff\xfe", b"v=0\r\nm=application 9\r\n", b"v=0\r\n" * 1000])
async def test_an_offer_that_is_none_is_refused(at: SignallingEndpoint, offer: bytes) -> None:
    async with serving(at) as (server, there), another_camera_goes_on(server, there):
        assert await post(there, offer) == 400


async def test_an_offer_of_any_length_is_not_read(at: SignallingEndpoint) -> None:
    async with serving(at) as (server, there), another_camera_goes_on(server, there):
        assert await post(there, b"v" * 65_537) == 413


async def hostile(at: SignallingEndpoint, channels: int) -> RTCPeerConnection:
    peer = RTCPeerConnection()
    for number in range(channels):
        peer.createDataChannel(f"channel {number}")
    await peer.setLocalDescription(await peer.createOffer())
    answer = await exchange(at, peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    return peer


async def test_a_peer_with_channels_of_its_own_is_put_out(at: SignallingEndpoint) -> None:
    async with serving(at) as (server, there), another_camera_goes_on(server, there):
        peer = await hostile(there, 100)
        assert len(server._guests) == 2
        await until(lambda: len(server._guests) == 1)
        await peer.close()


async def test_a_peer_that_sends_text_is_put_out(at: SignallingEndpoint) -> None:
    async with serving(at) as (server, there), another_camera_goes_on(server, there):
        peer = RTCPeerConnection()
        channel = peer.createDataChannel("evidence", negotiated=True, id=1)
        channel.add_listener("open", lambda: channel.send("hello"))
        await peer.setLocalDescription(await peer.createOffer())
        answer = await exchange(there, peer.localDescription.sdp)
        await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        assert len(server._guests) == 2
        await until(lambda: len(server._guests) == 1)
        await peer.close()


async def test_a_peer_that_never_comes_is_forgotten(at: SignallingEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(at) as (server, there), another_camera_goes_on(server, there):
        monkeypatch.setattr(guest_module, "_OPEN_S", 0.3)
        peer = RTCPeerConnection()
        peer.createDataChannel("x")
        await peer.setLocalDescription(await peer.createOffer())
        await exchange(there, peer.localDescription.sdp)
        assert len(server._guests) == 2
        await until(lambda: len(server._guests) == 1)
        await peer.close()


async def test_there_are_only_so_many_peers(at: SignallingEndpoint) -> None:
    async with serving(at, max_peers=1) as (server, there), another_camera_goes_on(server, there):
        assert await post(there, b"v=0\r\n") == 503


async def test_a_server_that_dies_is_noticed_and_found_again(at: SignallingEndpoint) -> None:
    async with serving(at) as (_, there), edge_link(there) as edge:
        await edge.ready()
        edge._peer._connection.sctp._handle_data = _deaf  # as a cable that is cut
        await until(lambda: "silent" in (edge.refusal() or ""))
        await edge.ready()
        assert edge.refusal() is None


async def _deaf(_: bytes) -> None:
    pass


async def test_lost_parts_leave_the_others(at: SignallingEndpoint) -> None:
    async with serving(at) as (server, there), edge_link(there) as edge:
        await edge.ready()
        keep, sent = edge._peer.evidence, []

        def lose_the_second(data: bytes) -> bool:
            sent.append(data)
            return True if len(sent) == 2 else keep(data)

        edge._peer.evidence = lose_the_second
        assert await edge.send("door", encode_bundle(9, [b"one", b"two", b"three"])) is None
        message = await anext(server.messages())
        assert (message.data, message.lost_parts) == (encode_bundle(0, [b"one", b"three"]), 1)


async def test_a_verdict_whose_first_copy_is_lost_comes_all_the_same_and_is_counted(at: SignallingEndpoint) -> None:
    recovered: list[str] = []
    async with serving(at) as (server, there), edge_link(there, on_recovered=recovered.append) as edge:
        await edge.ready()
        (guest,) = server._guests.values()
        guest._peer.evidence = lambda _: True
        assert await edge.send("door", b"data") is None
        assert await server.reply(await anext(server.messages()), b"verdict")
        assert await anext(edge.replies()) == ("door", b"verdict")
        assert "rescued" in recovered


@pytest.mark.parametrize("affordable", [True, False])
async def test_a_message_of_one_datagram_goes_again_where_the_budget_pays(
    at: SignallingEndpoint, affordable: bool
) -> None:
    asked: list[int] = []
    recovered: list[str] = []
    again = WebRtcCostModel().message_bits(5)

    def charge_overhead(bits: int) -> bool:
        asked.append(bits)
        return affordable or bits != again

    async with (
        serving(at) as (server, there),
        edge_link(there, charge_overhead=charge_overhead, on_recovered=recovered.append) as edge,
    ):
        await edge.ready()
        keep, sent = edge._peer.evidence, []

        def lose_the_first(data: bytes) -> bool:
            sent.append(data)
            return True if len(sent) == 1 else keep(data)

        edge._peer.evidence = lose_the_first
        assert await edge.send("door", b"first") is None
        await until(lambda: again in asked)
        if affordable:
            assert (await anext(server.messages())).data == b"first"
        assert sent == [pack_part(Part(0, 0, 0, 1, b"first"))] * (2 if affordable else 1)
        assert recovered == ["resent"] * affordable


async def test_what_is_answered_does_not_go_again_and_what_came_twice_counts_once(at: SignallingEndpoint) -> None:
    async with serving(at) as (server, there), edge_link(there) as edge:
        await edge.ready()
        for data in (b"one", b"two"):
            assert await edge.send("door", data) is None
            message = await anext(server.messages())
            assert message.data == data
            await server.reply(message, b"reply to " + data)
            assert await anext(edge.replies()) == ("door", b"reply to " + data)
        assert not edge._single
        edge._send_again(pack_part(Part(0, 1, 0, 1, b"two")), 800)
        await edge.ready()
        assert await edge.send("door", b"three") is None
        assert (await anext(server.messages())).data == b"three"


async def test_connecting_and_heartbeats_are_charged(at: SignallingEndpoint) -> None:
    charged: list[int] = []

    def charge_overhead(bits: int) -> bool:
        charged.append(bits)
        return True

    async with serving(at) as (_, there), edge_link(there, charge_overhead=charge_overhead) as edge:
        await edge.ready()
        assert charged[0] == WebRtcCostModel(ipv6=False, tls=False).connect_bits()
        await until(lambda: len(charged) > 1)  # what is counted beyond that, heartbeats at least


async def test_a_replay_wants_a_server(at: SignallingEndpoint) -> None:
    nobody = dataclasses.replace(at, port=9)
    with pytest.raises(SagelinkError, match="Connection refused"):
        async with WebRtcEdgeLink(nobody, "node", ["door"], CAMERA_INFO, charge_overhead=None):
            pass
