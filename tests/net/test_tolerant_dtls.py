"""The client for small curves against OpenSSL's server, whose curve of the certificate is taken for a small one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from hashlib import sha256

import pytest

pytest.importorskip("aiortc")

from aiortc.rtcdtlstransport import SRTP_PROFILES, RTCCertificate, certificate_digest, generate_certificate
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from sagelink.net import tolerant_dtls
from sagelink.net.peer_compatibility import CompatibleCertificate
from sagelink.net.small_curve_client import SmallCurveClient
from sagelink.net.tolerant_dtls import TolerantConnection

Change = Callable[[bytes], bytes]


class Server:
    """OpenSSL's end of a handshake."""

    def __init__(
        self,
        verify: int = SSL.VERIFY_NONE,
        groups: bytes = b"X25519",
        shown: tuple[crypto.X509, ec.EllipticCurvePrivateKey] | None = None,
    ) -> None:
        """`shown`: its certificate and key, instead of those of aiortc."""
        certificate = RTCCertificate.generateCertificate()
        context = certificate._create_ssl_context(SRTP_PROFILES)
        context.set_verify(verify, lambda *_: True)
        if groups == b"P-256":
            context.set_tmp_ecdh(ec.SECP256R1())
        if shown is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # cryptography could not read it either
                context.use_certificate(shown[0])
            context.use_privatekey(shown[1])
        self.certificate = certificate._cert
        self.ssl = SSL.Connection(context)
        self.ssl.set_accept_state()
        self.ssl.set_ciphertext_mtu(300)  # so that messages are fragments


def client() -> TolerantConnection:
    context = CompatibleCertificate.generateCertificate()._create_ssl_context(SRTP_PROFILES)
    connection = SSL.Connection(context)
    connection.set_connect_state()
    return TolerantConnection(connection)


def step(connection: TolerantConnection | SSL.Connection) -> bytes:
    """Continues the handshake; returns what has to be sent."""
    with contextlib.suppress(SSL.WantReadError):
        connection.do_handshake()
    try:
        return connection.bio_read(10_000)
    except SSL.WantReadError:
        return b""


def shake_hands(ours: TolerantConnection, theirs: Server, change: Change = bytes, rounds: int = 6) -> None:
    """`change` changes what the server sends."""
    for _ in range(rounds):
        sent = step(ours)
        if sent:
            theirs.ssl.bio_write(sent)
        answer = change(step(theirs.ssl))
        if answer:
            ours.bio_write(answer)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tolerant_dtls, "_SECP224R1", b"")  # any certificate contains it


@pytest.mark.parametrize("groups", [b"X25519", b"P-256"])
def test_both_sides_have_the_same_keys(small: None, groups: bytes) -> None:
    ours, theirs = client(), Server(groups=groups)
    shake_hands(ours, theirs)
    assert isinstance(ours._active, SmallCurveClient)
    assert ours.DTLSv1_get_timeout() is None
    label = b"EXTRACTOR-dtls_srtp"
    assert ours.export_keying_material(label, 56) == theirs.ssl.export_keying_material(label, 56)
    assert ours.get_selected_srtp_profile() == theirs.ssl.get_selected_srtp_profile() != b""
    assert ours.get_peer_certificate(as_cryptography=True) == theirs.certificate


def test_either_side_ends_the_connection(small: None) -> None:
    ours, theirs = client(), Server()
    shake_hands(ours, theirs)
    with pytest.raises(SSL.WantReadError):
        ours.recv(1500)
    theirs.ssl.shutdown()
    ours.bio_write(theirs.ssl.bio_read(1500))
    with pytest.raises(SSL.ZeroReturnError):
        ours.recv(1500)
    ours.shutdown()
    theirs.ssl.bio_write(ours.bio_read(1500))
    with pytest.raises(SSL.ZeroReturnError):
        theirs.ssl.recv(1500)


def test_a_flight_that_is_lost_is_repeated(small: None) -> None:
    ours, theirs = client(), Server()
    for _ in range(2):  # hello, and the request to repeat it, if the server sends one
        theirs.ssl.bio_write(step(ours))
        ours.bio_write(step(theirs.ssl))
        lost = step(ours)
        if isinstance(ours._active, SmallCurveClient):
            break
        theirs.ssl.bio_write(lost)
    first_s = ours.DTLSv1_get_timeout()
    ours.DTLSv1_handle_timeout()
    assert ours.DTLSv1_get_timeout() == 2 * first_s
    theirs.ssl.bio_write(ours.bio_read(1500))
    ours.bio_write(step(theirs.ssl))
    ours.do_handshake()


def damaged(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_wrong_signature_ends_the_handshake(small: None) -> None:
    ours, theirs = client(), Server()

    def change(data: bytes) -> bytes:
        at = data.find(b"\x04\x03\x00")  # ECDSA with SHA-256, and the length of the signature
        return damaged(data, at + 12) if at >= 0 else data

    with pytest.raises(SSL.Error, match="InvalidSignature"):
        shake_hands(ours, theirs, change)


def test_a_last_message_that_is_not_authentic_is_ignored(small: None) -> None:
    ours, theirs = client(), Server()
    shake_hands(ours, theirs, lambda data: damaged(data, len(data) - 1) if b"\x14\xfe\xfd" in data else data)
    with pytest.raises(SSL.WantReadError):
        ours.do_handshake()


def test_a_server_that_asks_for_a_certificate_is_refused(small: None) -> None:
    with pytest.raises(SSL.Error, match="such as a certificate"):
        shake_hands(client(), Server(SSL.VERIFY_PEER))


def test_other_curves_stay_with_openssl() -> None:
    ours, theirs = client(), Server()
    shake_hands(ours, theirs)
    assert isinstance(ours._active, SSL.Connection)
    assert ours.export_keying_material(b"x", 20) == theirs.ssl.export_keying_material(b"x", 20)


def test_only_secp224r1_is_small() -> None:
    for curve, small in ((ec.SECP224R1(), True), (ec.SECP256R1(), False)):
        data = generate_certificate(ec.generate_private_key(curve)).public_bytes(Encoding.DER)
        assert (tolerant_dtls._SECP224R1 in data) is small


def test_a_negative_serial_number_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As half of FFmpeg's certificates have it. Warnings are errors here, and cryptography warns when it reads one."""
    monkeypatch.setattr(x509, "random_serial_number", lambda: 0x1A << 152)  # of 20 bytes, and so is its negative one
    key = ec.generate_private_key(ec.SECP256R1())
    der = bytearray(generate_certificate(key).public_bytes(Encoding.DER))
    serial = der.index(b"\x02\x14")  # an integer of 20 bytes, the first one
    der[serial + 2] |= 0x80
    ours, theirs = client(), Server(shown=(crypto.load_certificate(crypto.FILETYPE_ASN1, bytes(der)), key))
    shake_hands(ours, theirs)
    digest = certificate_digest(ours.get_peer_certificate(as_cryptography=True), "sha-256")
    assert digest.replace(":", "").lower() == sha256(der).hexdigest()
