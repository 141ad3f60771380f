"""Makes certificates for tests with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(folder: Path, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """Makes a self-signed certificate for a host; returns the PEM files of certificate and key."""
    folder.mkdir(exist_ok=True)
    files = folder / "certificate.pem", folder / "key.pem"
    names = ["-subj", "/CN=sagelink", "-addext", f"subjectAltName={host}"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", *names]
    subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files
