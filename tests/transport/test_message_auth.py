"""Messages with a MAC: golden bytes, and every message that must not pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Reply
from sagelink.transport.envelope import MAX_MESSAGE_BYTES, MalformedMessage, claimed_seq, seal
from sagelink.transport.evidence_message import EvidenceMessage, decode_evidence, encode_evidence
from sagelink.transport.message_auth import EXTRA_BYTES, MAC_BYTES, MessageAuth
from sagelink.transport.reply_message import decode_reply, encode_reply

KEY, SESSION, CAMERA = bytes(range(32)), b"session!", "node/door"
AUTH = MessageAuth(KEY)
EVIDENCE = encode_evidence(EvidenceMessage(7, 3, 16, 1, np.array([0, 4, 8]), b"payload"))
REPLY = encode_reply(Reply(7, None, (3, 1), (-0.5, -1.25), 3, 12.5, 2.0, 4))
BOTH = pytest.mark.parametrize("message", [EVIDENCE, REPLY], ids=["evidence", "reply"])


@BOTH
def test_a_sealed_message_opens_to_the_same_bytes(message: bytes) -> None:
    sealed = AUTH.seal(message, CAMERA, SESSION)
    assert len(sealed) == len(message) + EXTRA_BYTES == len(message) - 4 + MAC_BYTES
    assert AUTH.open(sealed, CAMERA, SESSION) == message
    assert claimed_seq(sealed) == 7


def test_golden_bytes() -> None:
    assert AUTH.seal(EVIDENCE, CAMERA, SESSION).hex(" ") == (
        "53 47 04 81 00 00 00 07 03 10 01 00 03 3e 70 61 79 6c 6f 61 64 e2 e2 74 88 4e 9b 7f ac"
    )
    assert AUTH.seal(REPLY, CAMERA, SESSION).hex(" ") == (
        "53 47 04 82 00 00 00 07 00 03 00 00 30 d4 00 00 07 d0 00 04 00 02 "
        "00 00 00 03 bf 00 00 00 00 00 00 01 bf a0 00 00 41 35 ef 56 3e 63 2b c4"
    )


@BOTH
@pytest.mark.parametrize(
    ("key", "camera", "session"),
    [
        (b"\xff" * 32, CAMERA, SESSION),
        (KEY, "node/yard", SESSION),
        (KEY, "other/door", SESSION),
        (KEY, CAMERA, b"session?"),
        (KEY, CAMERA + "s", b"ession!"),
    ],
)
def test_another_key_camera_or_session_is_refused(message: bytes, key: bytes, camera: str, session: bytes) -> None:
    sealed = AUTH.seal(message, CAMERA, SESSION)
    with pytest.raises(MalformedMessage, match="the MAC does not match"):
        MessageAuth(key).open(sealed, camera, session)


@BOTH
def test_every_truncation_and_changed_byte_is_refused(message: bytes) -> None:
    sealed = AUTH.seal(message, CAMERA, SESSION)
    for length in range(len(sealed)):
        with pytest.raises(MalformedMessage):
            AUTH.open(sealed[:length], CAMERA, SESSION)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(MalformedMessage):
            AUTH.open(bytes(changed), CAMERA, SESSION)


@BOTH
def test_a_message_without_a_mac_is_refused(message: bytes) -> None:
    with pytest.raises(MalformedMessage, match=r"no MAC; accepted: .*mqtt\.mac_key_file"):
        AUTH.open(message, CAMERA, SESSION)


def test_a_message_of_version_3_is_refused_by_name() -> None:
    for message, read in ((EVIDENCE, decode_evidence), (REPLY, decode_reply)):
        old = seal(message[:2] + b"\3" + message[3:-4])
        for refuse in (read, lambda data: AUTH.open(data, CAMERA, SESSION)):
            with pytest.raises(MalformedMessage, match="version 3; accepted: 4"):
                refuse(old)


def test_a_side_without_the_key_names_it() -> None:
    for read, message in ((decode_evidence, EVIDENCE), (decode_reply, REPLY)):
        with pytest.raises(MalformedMessage, match=r"carries a MAC, but mqtt\.mac_key_file is not set"):
            read(AUTH.seal(message, CAMERA, SESSION))


def test_a_message_that_is_too_long_is_refused_before_it_is_hashed() -> None:
    with pytest.raises(MalformedMessage, match="accepted: up to"):
        AUTH.open(EVIDENCE[:3] + b"\x81" + bytes(MAX_MESSAGE_BYTES + EXTRA_BYTES), CAMERA, SESSION)


@pytest.mark.parametrize("content", [b"k" * 32, b"k" * 32 + b"\n", b"k" * 32 + b"\r\n"])
def test_the_key_is_the_file_without_its_line_break(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    sealed = MessageAuth.from_file(tmp_path / "key").seal(EVIDENCE, CAMERA, SESSION)
    assert sealed == MessageAuth(b"k" * 32).seal(EVIDENCE, CAMERA, SESSION)


def test_a_binary_key_is_used_whole(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff" * 31 + b"\n")
    sealed = MessageAuth.from_file(tmp_path / "key").seal(EVIDENCE, CAMERA, SESSION)
    assert sealed == MessageAuth(b"\xff" * 31 + b"\n").seal(EVIDENCE, CAMERA, SESSION)


@pytest.mark.parametrize("content", [None, b"", b"hunter2\n", b"k" * 31 + b"\n"])
def test_a_key_that_is_missing_or_short_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(UsageError, match=r"mqtt\.mac_key_file '.*key'") as error:
        MessageAuth.from_file(tmp_path / "key")
    assert "hunter2" not in str(error.value)
