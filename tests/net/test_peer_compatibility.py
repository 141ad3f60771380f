"""Peers that aiortc alone cannot connect to: each row of the table in net/peer_compatibility.py."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiortc")

import aiortc
from aioice import stun
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.rtcdtlstransport import RTCCertificate, generate_certificate
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sagelink.net.connection_steps import failed_handshake
from sagelink.net.offers import OfferRefused
from sagelink.net.peer_compatibility import (
    accept_short_checks,
    compatible_connection,
    mended_offer,
    tolerate_in_handshake,
)
from sagelink.net.video_peer import VideoPeer, VideoTerms
from tests.patience import PATIENCE_S
from tests.push import Shades

# FFmpeg 8 with -f whip and no audio, shortened.
FFMPEG_8 = (
    "v=0\r\no=FFmpeg 1 2 IN IP4 127.0.0.1\r\ns=FFmpegPublishSession\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
    "a=extmap-allow-mixed\r\nm=video 9 UDP/TLS/RTP/SAVPF 106\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\n"
    "a=ice-pwd:0123456789012345678901\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AA"] * 32) + "\r\na=setup:passive\r\na=mid:1\r\na=sendonly\r\n"
    "a=rtcp-mux\r\na=rtpmap:106 H264/90000\r\na=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;"
    "profile-level-id=42e01f\r\na=ssrc:7 cname:x\r\na=candidate:1 1 udp 127.0.0.1 5000 typ host\r\n"
)


class RsaCertificate(RTCCertificate):
    """As GStreamer's webrtcbin has it."""

    def _create_ssl_context(self, srtp_profiles: list[Any]) -> Any:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(b"ECDHE-RSA-AES128-GCM-SHA256")
        return context


async def connected(ours: RTCPeerConnection, theirs: RTCPeerConnection, setup: str) -> str:
    """The state of the connection after the offer of `theirs`, whose DTLS role is `setup`."""
    theirs.addTransceiver(Shades(9), "sendonly")
    await theirs.setLocalDescription(await theirs.createOffer())
    offer = theirs.localDescription.sdp.replace("a=setup:actpass", f"a=setup:{setup}")
    await ours.setRemoteDescription(aiortc.RTCSessionDescription(offer, "offer"))
    await ours.setLocalDescription(await ours.createAnswer())
    await theirs.setRemoteDescription(ours.localDescription)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while ours.connectionState not in ("connected", "failed"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return ours.connectionState
    finally:
        await asyncio.gather(ours.close(), theirs.close())


def rsa_peer() -> RTCPeerConnection:
    key = rsa.generate_private_key(65537, 2048)
    peer = RTCPeerConnection(RTCConfiguration([]))
    peer._RTCPeerConnection__certificates = [RsaCertificate(key, generate_certificate(key))]
    return peer


async def test_a_peer_with_an_rsa_certificate_connects():
    assert await connected(RTCPeerConnection(RTCConfiguration([])), rsa_peer(), "passive") == "failed"
    assert await connected(compatible_connection(RTCConfiguration([])), rsa_peer(), "passive") == "connected"


async def test_an_answer_has_one_fingerprint():
    connection = compatible_connection(RTCConfiguration([]))
    connection.createDataChannel("x")
    await connection.setLocalDescription(await connection.createOffer())
    sdp = connection.localDescription.sdp
    await connection.close()
    assert [line.split()[0] for line in re.findall(r"a=fingerprint:(.*)", sdp)] == ["sha-256"]


def test_an_offer_of_ffmpeg_8_is_mended():
    mended = mended_offer(FFMPEG_8)
    assert "a=group:BUNDLE 1\r\n" in mended
    assert re.search(r"a=candidate:1 1 udp \d+ 127.0.0.1 5000 typ host\r\n", mended)
    assert mended_offer(mended) == mended


async def test_an_offer_of_ffmpeg_8_is_answered():
    peer = VideoPeer(lambda frame: None, lambda reason: None, VideoTerms(5, 10**6))
    answer = await peer.answer(FFMPEG_8)
    await peer.close()
    assert "a=recvonly" in answer
    assert "H264" in answer


@pytest.mark.parametrize("offer", ["", "v=0\r\n", FFMPEG_8.replace("a=mid:1", "a=mid:").replace("H264", "H265")])
async def test_a_refusal_is_the_peers_reason_even_if_closing_fails(offer: str, monkeypatch):
    async def close(self: RTCPeerConnection) -> None:
        raise KeyError("1")

    monkeypatch.setattr(RTCPeerConnection, "close", close)
    with pytest.raises(OfferRefused) as refusal:
        await VideoPeer(lambda frame: None, lambda reason: None, VideoTerms(5, 10**6)).answer(offer)
    assert refusal.value.status == 400


async def test_a_check_without_priority_is_accepted():
    connection = compatible_connection(RTCConfiguration([]))
    connection.createDataChannel("x")
    transport = connection.sctp.transport.transport
    accept_short_checks(transport)
    await connection.setLocalDescription(await connection.createOffer())
    ice = transport._connection
    check = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    ice.check_incoming(check, ("127.0.0.1", 9), ice._protocols[0])
    assert [found.type for found in ice._remote_candidates] == ["prflx"]
    await connection.close()


@pytest.mark.parametrize(
    ("dtls", "ice", "named"),
    [
        ("failed", "completed", "DTLS handshake failed"),
        ("connecting", "completed", "DTLS handshake failed"),
        ("connected", "completed", "SCTP"),
        ("new", "checking", None),
        ("new", "failed", None),
    ],
)
def test_the_step_that_failed_is_named(dtls: str, ice: str, named: str | None):
    found = failed_handshake(SimpleNamespace(state=dtls, transport=SimpleNamespace(state=ice), _ssl=None))
    assert named in found if named else found is None
    assert failed_handshake(None) is None


@pytest.mark.parametrize(("curve", "named"), [(ec.SECP224R1(), "curve secp224r1"), (ec.SECP256R1(), "fingerprint")])
def test_a_curve_that_tls_no_longer_has_is_named(curve: ec.EllipticCurve, named: str):
    certificate = generate_certificate(ec.generate_private_key(curve))
    received = SimpleNamespace(get_peer_certificate=lambda as_cryptography: certificate)
    found = failed_handshake(
        SimpleNamespace(state="failed", transport=SimpleNamespace(state="completed"), _ssl=received)
    )
    assert named in found


@pytest.mark.parametrize(("role", "least_s"), [("client", 0.15), ("server", 0.0)])
async def test_a_client_gives_the_peer_time_to_store_our_fingerprint(role: str, least_s: float) -> None:
    loop = asyncio.get_running_loop()
    began: list[float] = []

    async def shake_hands() -> None:
        began.append(loop.time())

    transport: Any = SimpleNamespace(_do_handshake=shake_hands, _ssl=object(), _role=role)
    tolerate_in_handshake(transport)
    start_s = loop.time()
    await transport._do_handshake()
    assert began[0] - start_s >= least_s
