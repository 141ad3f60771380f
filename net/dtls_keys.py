"""Keys of a DTLS 1.2 session with AES-128-GCM, from the client's side: how records are sealed and opened (RFC 5288)."""

from __future__ import annotations

import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sagelink.net.dtls_messages import EPOCH_1, VERSION

_KEY, _SALT, _NONCE, _TAG = 16, 4, 8, 16  # bytes


def pseudo_random(secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """PRF of TLS 1.2 with SHA-256 (RFC 5246, section 5): `size` bytes."""
    seed, found = label + seed, b""
    state = seed
    while len(found) < size:
        state = hmac.digest(secret, state, "sha256")
        found += hmac.digest(secret, state + seed, "sha256")
    return found[:size]


class SessionKeys:
    """Seals the client's records and opens the server's."""

    def __init__(self, shared: bytes, session: bytes, client_random: bytes, server_random: bytes) -> None:
        """`shared`: secret of the key exchange; `session`: hash of all messages up to the client's key (RFC 7627)."""
        self._master = pseudo_random(shared, b"extended master secret", session, 48)
        self._randoms = client_random + server_random
        block = pseudo_random(self._master, b"key expansion", server_random + client_random, 2 * (_KEY + _SALT))
        salts = block[2 * _KEY :]
        self._client, self._client_salt = AESGCM(block[:_KEY]), salts[:_SALT]
        self._server, self._server_salt = AESGCM(block[_KEY : 2 * _KEY]), salts[_SALT:]

    def proof(self, label: bytes, transcript: bytes) -> bytes:
        """Content of a Finished message; `transcript`: hash of all messages before it."""
        return pseudo_random(self._master, label, transcript, 12)

    def export(self, label: bytes, size: int) -> bytes:
        """Keying material for another protocol (RFC 5705), without a context."""
        return pseudo_random(self._master, label, self._randoms, size)

    def seal(self, kind: int, number: int, body: bytes) -> bytes:
        """The body of a record. Each `number` must be used only once."""
        nonce = number.to_bytes(_NONCE, "big")
        return nonce + self._client.encrypt(self._client_salt + nonce, body, _bound(kind, number, len(body)))

    def open(self, kind: int, number: int, body: bytes) -> bytes | None:
        """The content of a record of the server; None if it is not authentic."""
        size = len(body) - _NONCE - _TAG
        if size < 0 or number < EPOCH_1:
            return None
        nonce, sealed = body[:_NONCE], body[_NONCE:]
        try:
            return self._server.decrypt(self._server_salt + nonce, sealed, _bound(kind, number, size))
        except InvalidTag:
            return None


def _bound(kind: int, number: int, size: int) -> bytes:
    """What the seal of a record covers besides its content."""
    return struct.pack(">QBHH", number, kind, VERSION, size)
