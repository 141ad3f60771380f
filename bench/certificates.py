"""Makes the certificates of a broker that asks its clients for certificates, with openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

# Python 3.13 checks what RFC 5280 asks of authorities, and the identifiers of keys.
_AUTHORITY = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
_OWN_KEY, _ISSUERS_KEY = "subjectKeyIdentifier=hash\n", "authorityKeyIdentifier=keyid:always\n"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files."""

    ca: Path
    server: Path
    server_key: Path
    client: Path  # the client's certificate and those of the intermediate authorities
    client_key: Path


def make_certificates(folder: Path, address: str, key_bits: int, chain: int) -> CertificateFiles:
    """`address`: of the broker; `chain`: certificates that a client sends, its own included."""
    ca, ca_key = _certificate(folder, "ca", key_bits, None, _AUTHORITY)
    server, server_key = _certificate(folder, "server", key_bits, (ca, ca_key), f"subjectAltName=IP:{address}\n")
    issuer, sent = (ca, ca_key), ""
    for number in range(chain - 1):
        issuer = _certificate(folder, f"intermediate{number}", key_bits, issuer, _AUTHORITY)
        sent = issuer[0].read_text(encoding="ascii") + sent
    client, client_key = _certificate(folder, "client", key_bits, issuer, "keyUsage=digitalSignature\n")
    client.write_text(client.read_text(encoding="ascii") + sent, encoding="ascii")
    return CertificateFiles(ca, server, server_key, client, client_key)


def _certificate(
    folder: Path, name: str, key_bits: int, issuer: tuple[Path, Path] | None, extensions: str
) -> tuple[Path, Path]:
    certificate, key, request = (folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
    extension_file = folder / f"{name}.ext"
    identifiers = _OWN_KEY if issuer is None else _OWN_KEY + _ISSUERS_KEY
    extension_file.write_text(extensions + identifiers, encoding="ascii")
    subject = ["-subj", f"/O=Sagelink bench/CN={name}"]
    _openssl("req", "-newkey", f"rsa:{key_bits}", "-nodes", *subject, "-keyout", str(key), "-out", str(request))
    signing = ["-signkey", str(key)]
    if issuer is not None:
        signing = ["-CA", str(issuer[0]), "-CAkey", str(issuer[1]), "-CAcreateserial"]
    extra = ["-extfile", str(extension_file), "-days", "9", "-out", str(certificate)]
    _openssl("x509", "-req", "-in", str(request), *signing, *extra)
    return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)  # noqa: S607
