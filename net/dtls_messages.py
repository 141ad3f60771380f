"""Records and handshake messages of DTLS 1.2 (RFC 6347). Pure functions and data."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cryptography import x509

VERSION = 0xFEFD  # DTLS 1.2
CHANGE_CIPHER, ALERT, HANDSHAKE = 20, 21, 22  # kinds of records
CLIENT_HELLO, SERVER_HELLO, CERTIFICATE, KEY_EXCHANGE, HELLO_DONE, CLIENT_KEY, FINISHED = 1, 2, 11, 12, 14, 16, 20
EPOCH_1 = 1 << 48  # the number of a record: epoch (2 bytes) and sequence number (6 bytes)
RECORD = struct.Struct(">BHQH")  # kind, version, number, length
MAX_BYTES = 16_384  # of a handshake message
_MESSAGE = struct.Struct(">B3sH3s3s")  # kind, length, number, offset and length of the fragment
_MAX_MESSAGES, _MAX_FRAGMENTS = 16, 64


def records(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, number and body of each record in a datagram; stops at the first that is not whole."""
    while len(datagram) >= RECORD.size:
        kind, _, number, size = RECORD.unpack_from(datagram)
        body, datagram = datagram[RECORD.size :][:size], datagram[RECORD.size + size :]
        if len(body) < size:
            return
        yield kind, number, body


def message(kind: int, number: int, body: bytes) -> bytes:
    """A handshake message as one fragment, which is also its form in the transcript."""
    size = len(body).to_bytes(3, "big")
    return _MESSAGE.pack(kind, size, number, bytes(3), size) + body


class Messages:
    """Handshake messages of one side, put together from their fragments, by number."""

    def __init__(self) -> None:
        self._fragments: dict[int, tuple[int, int, dict[int, bytes]]] = {}  # kind, length, fragments by offset

    def add(self, body: bytes) -> None:
        """`body`: of a handshake record, with one or more fragments. Fragments that fit nothing are dropped."""
        while len(body) >= _MESSAGE.size:
            kind, size, number, offset, part_size = _MESSAGE.unpack_from(body)
            length, begin, taken = (int.from_bytes(field, "big") for field in (size, offset, part_size))
            part, body = body[_MESSAGE.size :][:taken], body[_MESSAGE.size + taken :]
            if number >= _MAX_MESSAGES or length > MAX_BYTES or begin + len(part) > length or len(part) < taken:
                return
            known = self._fragments.setdefault(number, (kind, length, {}))
            if known[:2] == (kind, length) and len(known[2]) < _MAX_FRAGMENTS:
                known[2].setdefault(begin, part)

    def has_begun(self, kind: int) -> bool:
        return any(known == kind for known, _, _ in self._fragments.values())

    def find(self, kind: int) -> tuple[int, bytes] | None:
        """Number and body of the first complete message of a kind."""
        for number, (known, length, parts) in sorted(self._fragments.items()):
            body = b""
            for begin, part in sorted(parts.items()):
                body += part[len(body) - begin :] if begin <= len(body) else b""
            if known == kind and len(body) == length:
                return number, body
        return None


def first_certificate(body: bytes) -> x509.Certificate:
    """The server's own certificate, from its message: a list, each with a length of 3 bytes. Raises ValueError."""
    return x509.load_der_x509_certificate(body[6 : 6 + int.from_bytes(body[3:6], "big")])
