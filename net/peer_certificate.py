"""Reads the certificate of a DTLS peer: its fingerprint, and after a failed handshake its public key.

FFmpeg's certificates have a random serial number, and every other one is negative. RFC 5280 forbids that: cryptography
warns when it reads such a certificate, and announces that it will refuse it.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from OpenSSL import SSL, crypto


class PeerCertificate:
    """What aiortc and `refused_certificate` use of a certificate of cryptography. It is read only for its key."""

    def __init__(self, der: bytes) -> None:
        self._der = der

    def fingerprint(self, algorithm: hashes.HashAlgorithm) -> bytes:
        digest = hashes.Hash(algorithm)
        digest.update(self._der)
        return digest.finalize()

    def public_key(self) -> CertificatePublicKeyTypes:
        return x509.load_der_x509_certificate(self._der).public_key()


def peer_certificate(connection: SSL.Connection) -> PeerCertificate | None:
    """The certificate that the peer has shown; None before."""
    certificate = connection.get_peer_certificate()
    return None if certificate is None else PeerCertificate(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))
