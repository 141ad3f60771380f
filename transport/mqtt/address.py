"""The addresses of an MQTT broker, TLS settings and credentials, read from the configuration and the environment.

Passwords come from the environment or a file, and are never printed.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from sagelink.pipeline.config.link import MqttConfig
from sagelink.pipeline.errors import UsageError
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.server_url import UrlRules, cluster_url, parse_cluster_url

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_WEB_PATH = "/mqtt"  # the path of a ws:// URL without one
ENV_USERNAME, ENV_PASSWORD = "SAGELINK_MQTT_USERNAME", "SAGELINK_MQTT_PASSWORD"
_RULES = UrlRules(
    schemes=PORTS,
    server="an MQTT broker",
    accepted="mqtt://host[:port][,host[:port]...], mqtts://..., ws://...[/path] or wss://...[/path]",
    credentials=f"{ENV_USERNAME} and {ENV_PASSWORD}, or mqtt.username and mqtt.password_file",
)


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker, or the brokers of one cluster, and this side's credentials there."""

    addresses: tuple[tuple[str, int], ...]  # host and port of each broker
    tls: ssl.SSLContext | None
    certificate_bytes: int  # that this side sends in a TLS handshake; 0 without a client certificate
    username: str | None
    password: str | None = field(repr=False)
    protocol: str  # "5", which falls back to 3.1.1, or "3.1.1"
    keepalive_s: int
    web_path: str | None = None  # of a broker behind a WebSocket
    evidence_qos: int = 1

    @property
    def url(self) -> str:
        return self.url_of(*self.addresses)

    def url_of(self, *addresses: tuple[str, int]) -> str:
        scheme = "mqtt" if self.web_path is None else "ws"
        return cluster_url(f"{scheme}{'s' if self.tls else ''}", addresses, self.web_path or "")


def parse_url(url: str, where: str, also_accepted: str = "") -> tuple[str, tuple[tuple[str, int], ...]]:
    """Scheme and addresses of an MQTT URL. `also_accepted`: further forms that the caller accepts, for the error
    message. Raises UsageError, without repeating a password."""
    rules = replace(_RULES, accepted=_RULES.accepted + also_accepted)
    return parse_cluster_url(url, where, rules, PORTS, path_schemes=("ws", "wss"))


def open_broker(url: str, config: MqttConfig, where: str, also_accepted: str = "") -> Broker:
    """Reads certificates and credentials. Raises UsageError for unreadable files and for settings that contradict."""
    scheme, addresses = parse_url(url, where, also_accepted)
    files = {"mqtt.ca": config.ca, "mqtt.certificate": config.certificate, "mqtt.key": config.key}
    if scheme in ("mqtt", "ws") and any(files.values()):
        named = next(key for key, path in files.items() if path)
        raise UsageError(f"{named} is set, but {where} is {scheme}://, which is not encrypted; accepted: {scheme}s://")
    if (config.certificate is None) != (config.key is None):
        raise UsageError("mqtt.certificate and mqtt.key belong together: one of them is not set")
    username, password = _credentials(config)
    return Broker(
        addresses=addresses,
        tls=_tls(config) if scheme in ("mqtts", "wss") else None,
        certificate_bytes=_certificate_bytes(config.certificate),
        username=username,
        password=password,
        protocol=config.protocol,
        keepalive_s=max(1, round(config.keepalive)),
        web_path=(urlsplit(url).path.rstrip("/") or _WEB_PATH) if scheme in ("ws", "wss") else None,
        evidence_qos=config.evidence_qos,
    )


def message_auth(config: MqttConfig) -> MessageAuth | None:
    """Seals and opens messages with the key in `mqtt.mac_key_file`; None where none is set. Raises UsageError."""
    return None if config.mac_key_file is None else MessageAuth.from_file(config.mac_key_file)


def _credentials(config: MqttConfig) -> tuple[str | None, str | None]:
    username = os.environ.get(ENV_USERNAME) or config.username or None
    password = os.environ.get(ENV_PASSWORD)
    if password is None and config.password_file is not None:
        try:
            password = config.password_file.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"mqtt.password_file {str(config.password_file)!r} cannot be read: {error}") from None
    if password and not username:
        raise UsageError(f"an MQTT password is set, but no user name; set {ENV_USERNAME} or mqtt.username")
    return username, password


def _tls(config: MqttConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=_existing_file("mqtt.ca", config.ca))
        if config.certificate is not None:
            context.load_cert_chain(
                str(_existing_file("mqtt.certificate", config.certificate)), _existing_file("mqtt.key", config.key)
            )
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"mqtt.ca, mqtt.certificate or mqtt.key: not usable PEM files: {error}") from None
    return context


def _certificate_bytes(path: Path | None) -> int:
    """The DER bytes of the certificates in a PEM file, which `_tls` has read."""
    if path is None:
        return 0
    lines = [line for line in path.read_text(encoding="ascii", errors="replace").splitlines() if "-" not in line]
    return sum(map(len, lines)) * 3 // 4


def _existing_file(key: str, path: Path | None) -> str | None:
    if path is not None and not path.is_file():
        raise UsageError(f"{key}: {str(path)!r} is not a file")
    return None if path is None else str(path)
