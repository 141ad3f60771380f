"""What other WebRTC programs do that aiortc 1.16 and aioice do not expect; the only place that allows for it.

| peer | what it does | without this module |
|---|---|---|
| GStreamer's webrtcbin | has an RSA certificate, and needs an ECDHE-RSA suite | no handshake |
| libdatachannel (OBS) | compares only the last fingerprint of an answer | one connection in four fails |
| libdatachannel (OBS) | begins ICE before it has stored the fingerprint of the answer | a quick handshake is refused |
| FFmpeg 8 | names a section in BUNDLE that the offer does not have; leaves the priority out of candidates | no answer |
| FFmpeg 8.1 with GnuTLS | makes a certificate on secp224r1, which OpenSSL 4 refuses | no handshake |
| FFmpeg 8.0 with OpenSSL | gives half of its certificates a negative serial number | cryptography warns |
| some ICE agents | send checks without PRIORITY | KeyError in aioice |

Private attributes used: `RTCPeerConnection.__certificates`, `RTCCertificate._create_ssl_context`,
`RTCDtlsTransport._ssl`, `._role` and `._do_handshake`, `RTCIceTransport._connection` and
`aioice.Connection.check_incoming`.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from aiortc import (
    RTCCertificate,
    RTCConfiguration,
    RTCDtlsFingerprint,
    RTCDtlsTransport,
    RTCIceTransport,
    RTCPeerConnection,
)
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from sagelink.net.tolerant_dtls import TolerantConnection

_SUITES = ("AES128-GCM-SHA256", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA")
_CIPHERS = ":".join(f"ECDHE-{kind}-{suite}" for kind in ("ECDSA", "RSA") for suite in _SUITES)
_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # of certificates; RFC 8422 removed the smaller curves from TLS
_PRIORITY = (110 << 24) + (65535 << 8) + 255  # of a peer-reflexive candidate (RFC 8445, 5.1.2)
_HANDSHAKE_DELAY_S = 0.2  # from the end of ICE, so that the peer has stored our fingerprint
_SHORT_CANDIDATE = re.compile(r"^(a=candidate:\S+ \d+ \S+) (\S+ \d+ typ )", re.MULTILINE)


class CompatibleCertificate(RTCCertificate):
    """Shakes hands also with peers that have an RSA certificate, and shows one fingerprint."""

    def getFingerprints(self) -> list[RTCDtlsFingerprint]:
        return [fingerprint for fingerprint in super().getFingerprints() if fingerprint.algorithm == "sha-256"]

    def _create_ssl_context(self, srtp_profiles: list[Any]) -> SSL.Context:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(_CIPHERS.encode())
        return context


def compatible_connection(configuration: RTCConfiguration) -> RTCPeerConnection:
    """A new connection for any peer."""
    connection = RTCPeerConnection(configuration)
    connection._RTCPeerConnection__certificates = [CompatibleCertificate.generateCertificate()]  # type: ignore[attr-defined]
    return connection


def refused_certificate(transport: RTCDtlsTransport) -> str | None:
    """Why OpenSSL refuses the certificate that the peer has sent; None without a reason that is known."""
    certificate = transport._ssl and transport._ssl.get_peer_certificate(as_cryptography=True)
    key = certificate.public_key() if certificate else None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name in _CURVES:
        return None
    accepted = ", ".join(_CURVES)
    return (
        f"the peer's certificate is on the curve {key.curve.name}; accepted: {accepted}, or RSA "
        "(FFmpeg: options cert_file and key_file)"
    )


def mended_offer(offer: str) -> str:
    """The offer with a BUNDLE of its own sections only, and with a priority in each candidate."""
    mids = set(re.findall(r"^a=mid:(\S+)", offer, re.MULTILINE))

    def bundle(found: re.Match[str]) -> str:
        return " ".join(["a=group:BUNDLE", *(mid for mid in found[1].split() if mid in mids)])

    offer = re.sub(r"^a=group:BUNDLE([^\r\n]*)", bundle, offer, flags=re.MULTILINE)
    return _SHORT_CANDIDATE.sub(rf"\g<1> {_PRIORITY} \g<2>", offer)


def accept_short_checks(transport: RTCIceTransport) -> None:
    """Accepts ICE checks without PRIORITY. Call it before the candidates are gathered."""
    connection = transport._connection
    check = connection.check_incoming

    def check_incoming(message: Any, addr: tuple[str, int], protocol: Any) -> None:
        message.attributes.setdefault("PRIORITY", _PRIORITY)
        check(message, addr, protocol)

    connection.check_incoming = check_incoming  # type: ignore[method-assign]


def tolerate_in_handshake(transport: RTCDtlsTransport) -> None:
    """Accepts a server's certificate on secp224r1, and negative serial numbers, and gives the peer time to store our
    fingerprint. Call it before the handshake begins."""
    shake_hands = transport._do_handshake

    async def do_handshake() -> None:
        if transport._ssl is not None:
            is_client = transport._role == "client"
            transport._ssl = TolerantConnection(transport._ssl, is_client)  # type: ignore[assignment]
            if is_client:
                await asyncio.sleep(_HANDSHAKE_DELAY_S)
        await shake_hands()

    transport._do_handshake = do_handshake  # type: ignore[method-assign]
