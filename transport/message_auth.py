"""Message authentication with a shared key: seals messages with a MAC in place of their checksum, and opens them again.

The MAC is BLAKE2b (RFC 7693) with a key, cut to 8 bytes, over the camera's address, the session of the edge's run and
the message. So a message of another camera or of an earlier run does not pass, nor does a message of one who lacks the
key. A link seals what it sends and opens what it receives: no other module meets a MAC.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from sagelink.pipeline.errors import UsageError
from sagelink.transport.envelope import (
    CRC_BYTES,
    MAX_MESSAGE_BYTES,
    MalformedMessage,
    check_version,
    has_mac,
    seal,
    set_mac_flag,
    unseal,
)

MIN_KEY_BYTES = 32
MAC_BYTES = 8
EXTRA_BYTES = MAC_BYTES - CRC_BYTES  # by which a message with a MAC is longer


class MessageAuth:
    """Seals and opens messages, with one key for evidence and replies: their kinds differ."""

    def __init__(self, key: bytes) -> None:
        """`key`: at least MIN_KEY_BYTES."""
        self._key = hashlib.blake2b(key, person=b"sagelink-key").digest()

    @classmethod
    def from_file(cls, path: Path) -> MessageAuth:
        """The key is the file's bytes, of a text file without its line break. Raises UsageError."""
        try:
            key = path.read_bytes()
        except OSError as error:
            raise UsageError(f"mqtt.mac_key_file {str(path)!r} cannot be read: {error.strerror}") from None
        if key.isascii():
            key = key.rstrip(b"\r\n")
        if len(key) < MIN_KEY_BYTES:
            raise UsageError(
                f"mqtt.mac_key_file {str(path)!r} holds {len(key)} bytes; accepted: at least {MIN_KEY_BYTES} random "
                f"bytes, such as from: openssl rand -hex 32"
            )
        return cls(key)

    def seal(self, message: bytes, address: str, session: bytes) -> bytes:
        """`message`, whose checksum is replaced by a MAC. `address`: of the camera; `session`: of the edge's run."""
        body = set_mac_flag(unseal(message), True)
        return body + self._mac(body, address, session)

    def open(self, data: bytes, address: str, session: bytes) -> bytes:
        """The message with its checksum again. Raises MalformedMessage unless the MAC is right."""
        if not has_mac(data):
            check_version(data)
            raise MalformedMessage("no MAC; accepted: messages with a MAC of the key in mqtt.mac_key_file")
        if not MAC_BYTES < len(data) <= MAX_MESSAGE_BYTES + EXTRA_BYTES:
            raise MalformedMessage(f"{len(data)} bytes with a MAC; accepted: up to {MAX_MESSAGE_BYTES + EXTRA_BYTES}")
        body, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body, address, session)):
            raise MalformedMessage("the MAC does not match: another key in mqtt.mac_key_file, or a forged message")
        return seal(set_mac_flag(body, False))

    def _mac(self, body: bytes, address: str, session: bytes) -> bytes:
        context = b"".join(len(part).to_bytes(2) + part for part in (address.encode(), session))
        return hashlib.blake2b(context + body, key=self._key, digest_size=MAC_BYTES, person=b"sagelink-4").digest()
