"""A DTLS connection that also accepts peers with a negative serial number, and servers with a certificate on secp224r1,
as FFmpeg 8.0 with OpenSSL and FFmpeg 8.1 with GnuTLS make them.

OpenSSL 4 has no option that accepts this curve: it ends the handshake when it checks the server's signature. So
`TolerantConnection` passes everything to OpenSSL, but a client reads the server's first flight too. If the certificate
is on this curve, `SmallCurveClient` takes the place of OpenSSL. All other handshakes stay with OpenSSL.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

from sagelink.net.dtls_messages import (
    CERTIFICATE,
    EPOCH_1,
    HANDSHAKE,
    MAX_BYTES,
    SERVER_HELLO,
    Messages,
    records,
)
from sagelink.net.peer_certificate import peer_certificate
from sagelink.net.small_curve_client import SmallCurveClient

_MAX_HELD = 64  # datagrams
_SECP224R1 = bytes.fromhex("06052b81040021")  # its name in a certificate (RFC 5480, 2.1.1.1)


class TolerantConnection:
    """An `SSL.Connection` as aiortc uses it."""

    def __init__(self, connection: SSL.Connection, is_client: bool = True) -> None:
        self._active: Any = connection
        self._decided = not is_client  # OpenSSL stays, or has been replaced
        self._sent = b""  # records that OpenSSL has sent
        self._held: list[bytes] = []  # datagrams that wait for the certificate to be complete
        self._received = Messages()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._active, name)

    def get_peer_certificate(self, *, as_cryptography: bool) -> Any:
        if isinstance(self._active, SmallCurveClient):
            return self._active.get_peer_certificate(as_cryptography=as_cryptography)
        return peer_certificate(self._active)

    def bio_read(self, size: int) -> bytes:
        data: bytes = self._active.bio_read(size)
        if not self._decided and len(self._sent) < MAX_BYTES:
            self._sent += data
        return data

    def bio_write(self, data: bytes) -> None:
        if self._decided:
            self._active.bio_write(data)
            return
        for kind, number, body in records(data):
            if kind == HANDSHAKE and number < EPOCH_1:
                self._received.add(body)
        self._held.append(data)
        certificate = self._received.find(CERTIFICATE)
        begun = self._received.has_begun(SERVER_HELLO) or self._received.has_begun(CERTIFICATE)
        if certificate is None and begun and len(self._held) < _MAX_HELD:
            return
        if certificate is not None:
            self._decided = True
            if _SECP224R1 in certificate[1]:
                self._active = SmallCurveClient(self._sent)
        for held in self._held:
            self._active.bio_write(held)
        self._held.clear()
