"""A DTLS client that also accepts servers with a certificate on secp224r1, as FFmpeg 8.1 with GnuTLS makes it.

OpenSSL 4 has no option that accepts this curve: it ends the handshake when it checks the server's signature. So
`TolerantConnection` passes everything to OpenSSL, but reads the server's first flight too. If the certificate is on
this curve, `SmallCurveClient` takes the place of OpenSSL. All other handshakes stay with OpenSSL.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from sagelink.net.dtls_messages import (
    CERTIFICATE,
    EPOCH_1,
    HANDSHAKE,
    MAX_BYTES,
    SERVER_HELLO,
    Messages,
    first_certificate,
    records,
)
from sagelink.net.small_curve_client import SmallCurveClient

_MAX_HELD = 64  # datagrams


class TolerantConnection:
    """A client's `SSL.Connection`, as aiortc uses it, that also accepts a server's certificate on secp224r1."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._active: Any = connection
        self._decided = False
        self._sent = b""  # records that OpenSSL has sent
        self._held: list[bytes] = []  # datagrams that wait for the certificate to be complete
        self._received = Messages()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._active, name)

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
            if _is_small(certificate[1]):
                self._active = SmallCurveClient(self._sent)
        for held in self._held:
            self._active.bio_write(held)
        self._held.clear()


def _is_small(body: bytes) -> bool:
    try:
        key = first_certificate(body).public_key()
    except ValueError:
        return False
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == ec.SECP224R1.name
