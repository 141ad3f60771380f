"""The client of a DTLS 1.2 handshake whose server has a certificate on secp224r1: what OpenSSL 4 no longer does.

It continues after the client hello, which OpenSSL has sent, and has only what such a server needs: ECDHE with x25519 or
secp256r1, AES-128-GCM, an extended master secret, SRTP keys (RFC 5246, 6347, 7627, 5764), and no certificate of the
client. The cryptographic operations are those of the package cryptography, which has the curve. The caller compares the
certificate with the fingerprint of the offer, as after a handshake of OpenSSL.
"""

from __future__ import annotations

import hmac
import struct
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from OpenSSL import SSL

from sagelink.net.dtls_keys import SessionKeys
from sagelink.net.dtls_messages import (
    ALERT,
    CERTIFICATE,
    CHANGE_CIPHER,
    CLIENT_HELLO,
    CLIENT_KEY,
    EPOCH_1,
    FINISHED,
    HANDSHAKE,
    HELLO_DONE,
    KEY_EXCHANGE,
    RECORD,
    SERVER_HELLO,
    VERSION,
    Messages,
    first_certificate,
    message,
    records,
)

_SUITE = 0xC02B  # ECDHE-ECDSA-AES128-GCM-SHA256
_X25519, _SECP256R1 = 29, 23
_EXTENDED_SECRET, _USE_SRTP = 23, 14  # extensions
_SIGNATURES = {0x0403: hashes.SHA256(), 0x0503: hashes.SHA384(), 0x0603: hashes.SHA512()}  # ECDSA
_PROFILES = {1: b"SRTP_AES128_CM_SHA1_80", 7: b"SRTP_AEAD_AES_128_GCM", 8: b"SRTP_AEAD_AES_256_GCM"}
_FATAL = b"\x02"
_CLOSE_NOTIFY = b"\x01\x00"
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 4.0  # before our flight is repeated
_MAX_ARRIVED = 64  # datagrams that wait to be read


class SmallCurveClient:
    """The client of a handshake from the server's first flight on, with the methods of `SSL.Connection` that aiortc
    calls. `bio_write` takes the server's datagrams, from the first of its flight on."""

    def __init__(self, sent: bytes) -> None:
        """`sent`: all records that carried client hellos. Only the last hello counts (RFC 6347, section 4.2.1)."""
        hellos = [(number, body) for kind, number, body in records(sent) if kind == HANDSHAKE]
        last = max(int.from_bytes(body[4:6], "big") for _, body in hellos)
        whole = Messages()
        for _, body in hellos:
            if int.from_bytes(body[4:6], "big") == last:
                whole.add(body)
        found = whole.find(CLIENT_HELLO)
        assert found is not None, "OpenSSL has sent its client hello"
        self._next_message = last + 1
        self._next_record = max(number for number, _ in hellos) + 1
        self._next_sealed = EPOCH_1
        self._transcript = message(CLIENT_HELLO, last, found[1])
        self._random = found[1][2:34]
        self._server_random = b""
        self._profile = b""
        self._arrived: list[bytes] = []
        self._leaving = b""
        self._messages = Messages()
        self._flight: list[tuple[int, bytes]] = []  # ours, before records: kind and body, the last one sealed
        self._wait_s = _FIRST_WAIT_S
        self._keys: SessionKeys | None = None
        self._certificate: x509.Certificate | None = None
        self._done = False

    def bio_write(self, data: bytes) -> None:
        if len(self._arrived) < _MAX_ARRIVED:
            self._arrived.append(data)

    def bio_read(self, _: int) -> bytes:
        """The next datagram."""
        if not self._leaving:
            raise SSL.WantReadError
        data, self._leaving = self._leaving, b""
        return data

    def DTLSv1_get_timeout(self) -> float | None:
        return None if self._done else self._wait_s

    def DTLSv1_handle_timeout(self) -> None:
        self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
        self._send_flight()

    def do_handshake(self) -> None:
        """Raises SSL.WantReadError while more is needed, and SSL.Error if the server's messages are not valid."""
        arrived, self._arrived = self._arrived, []
        for datagram in arrived:
            for kind, number, body in records(datagram):
                self._take(kind, number, body)
        if not self._flight:
            self._answer()
        if not self._done:
            raise SSL.WantReadError

    def _take(self, kind: int, number: int, body: bytes) -> None:
        """Reads a record. Raises SSL.Error."""
        if number < EPOCH_1 and kind == HANDSHAKE:
            self._messages.add(body)
        elif number < EPOCH_1 and kind == ALERT and body[:1] == _FATAL and not self._done:
            raise SSL.Error("the server has ended the handshake")
        elif kind == HANDSHAKE and self._flight and not self._done:
            assert self._keys is not None
            opened = self._keys.open(kind, number, body)
            if opened is not None:
                self._finish(opened)

    def _answer(self) -> None:
        """Sends our flight, once the server's is complete. Raises SSL.Error."""
        kinds = (SERVER_HELLO, CERTIFICATE, KEY_EXCHANGE, HELLO_DONE)
        found = [self._messages.find(kind) for kind in kinds]
        messages = [complete for complete in found if complete is not None]
        if len(messages) < len(kinds):
            return
        numbers = [number for number, _ in messages]
        if numbers != [*range(numbers[0], numbers[0] + len(kinds))]:
            raise SSL.Error("the server asks for what this client does not have, such as a certificate")
        try:
            self._read_hello(messages[0][1])
            self._certificate = first_certificate(messages[1][1])
            public, shared = self._exchange(messages[2][1])
        except (ValueError, IndexError, KeyError, struct.error, InvalidSignature) as error:
            raise SSL.Error(f"the server's messages are not valid: {error!r}") from None
        for kind, (number, body) in zip(kinds, messages, strict=True):
            self._transcript += message(kind, number, body)
        own = message(CLIENT_KEY, self._next_message, bytes([len(public)]) + public)
        self._transcript += own
        session = sha256(self._transcript).digest()
        keys = self._keys = SessionKeys(shared, session, self._random, self._server_random)
        finished = message(FINISHED, self._next_message + 1, keys.proof(b"client finished", session))
        self._transcript += finished
        self._flight = [(HANDSHAKE, own), (CHANGE_CIPHER, b"\x01"), (HANDSHAKE, finished)]
        self._send_flight()

    def _read_hello(self, body: bytes) -> None:
        """Version, random number, session, suite, compression and extensions. Raises KeyError and others."""
        self._server_random = body[2:34]
        rest = body[35 + body[34] :]
        suite, compression, size = struct.unpack_from(">HBH", rest)
        extensions, rest = {}, rest[5:][:size]
        while rest:
            kind, size = struct.unpack_from(">HH", rest)
            extensions[kind], rest = rest[4:][:size], rest[4 + size :]
        if (int.from_bytes(body[:2], "big"), suite, compression) != (VERSION, _SUITE, 0):
            raise ValueError("another version or cipher suite")
        if _EXTENDED_SECRET not in extensions:
            raise ValueError("no extended master secret")
        self._profile = _PROFILES[int.from_bytes(extensions[_USE_SRTP][2:4], "big")]

    def _exchange(self, body: bytes) -> tuple[bytes, bytes]:
        """Our public key and the shared secret. Raises InvalidSignature, KeyError, ValueError and others."""
        assert self._certificate is not None
        kind, group, size = struct.unpack_from(">BHB", body)
        point, signed, rest = body[4 : 4 + size], body[: 4 + size], body[4 + size :]
        algorithm, size = struct.unpack_from(">HH", rest)
        key = self._certificate.public_key()
        if kind != 3 or not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("no named curve")
        key.verify(rest[4 : 4 + size], self._random + self._server_random + signed, ec.ECDSA(_SIGNATURES[algorithm]))
        if group == _X25519:
            ours = x25519.X25519PrivateKey.generate()
            return ours.public_key().public_bytes_raw(), ours.exchange(x25519.X25519PublicKey.from_public_bytes(point))
        if group != _SECP256R1:
            raise ValueError("another curve of the exchange")
        own = ec.generate_private_key(ec.SECP256R1())
        encoding, form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        return own.public_key().public_bytes(encoding, form), own.exchange(ec.ECDH(), theirs)

    def _finish(self, opened: bytes) -> None:
        """Checks the server's last message. Raises SSL.Error."""
        assert self._keys is not None
        messages = Messages()
        messages.add(opened)
        found = messages.find(FINISHED)
        proof = self._keys.proof(b"server finished", sha256(self._transcript).digest())
        if found is None or not hmac.compare_digest(found[1], proof):
            raise SSL.Error("the server's last message does not fit the handshake")
        self._done = True

    def _send_flight(self) -> None:
        if not self._flight:
            return
        for kind, body in self._flight[:-1]:
            self._leaving += RECORD.pack(kind, VERSION, self._next_record, len(body)) + body
            self._next_record += 1
        self._send_sealed(*self._flight[-1])

    def _send_sealed(self, kind: int, body: bytes) -> None:
        assert self._keys is not None
        sealed = self._keys.seal(kind, self._next_sealed, body)
        self._leaving += RECORD.pack(kind, VERSION, self._next_sealed, len(sealed)) + sealed
        self._next_sealed += 1

    def recv(self, _: int) -> bytes:
        """Raises SSL.ZeroReturnError when the server has closed the connection, otherwise SSL.WantReadError: a media
        connection carries no data."""
        if self._done and self._keys is not None:
            arrived, self._arrived = self._arrived, []
            for datagram in arrived:
                for kind, number, body in records(datagram):
                    if kind == ALERT and self._keys.open(kind, number, body) == _CLOSE_NOTIFY:
                        raise SSL.ZeroReturnError
        raise SSL.WantReadError

    def shutdown(self) -> None:
        if self._done:
            self._send_sealed(ALERT, _CLOSE_NOTIFY)

    def get_peer_certificate(self, *, as_cryptography: bool) -> x509.Certificate | None:
        return self._certificate

    def get_selected_srtp_profile(self) -> bytes:
        return self._profile

    def export_keying_material(self, label: bytes, size: int) -> bytes:
        """As `SessionKeys.export`."""
        assert self._keys is not None
        return self._keys.export(label, size)
