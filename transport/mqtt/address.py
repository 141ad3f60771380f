"""Where a broker is and how to speak to it. Passwords come from the environment or a file, and are never printed."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sagelink.pipeline.config import MqttConfig
from sagelink.pipeline.errors import UsageError

PORTS = {"mqtt": 1883, "mqtts": 8883}
ENV_USERNAME, ENV_PASSWORD = "SAGELINK_MQTT_USERNAME", "SAGELINK_MQTT_PASSWORD"
_ACCEPTED = "accepted: mqtt://host[:port] or mqtts://host[:port]"


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker, and what this side shows it."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    client_certificate: bool
    username: str | None
    password: str | None = field(repr=False)
    protocol: str  # "5", which falls back to 3.1.1, or "3.1.1"
    keepalive_s: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_url(url: str, where: str, instead: str = "") -> tuple[str, str, int]:
    """Scheme, host and port of an MQTT URL; `instead`: what else is accepted there. Raises UsageError; a password is
    not repeated in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{where}: the address is not a URL ({error}); {_ACCEPTED}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{where}: a URL carries no credentials: commands are seen by others. Set {ENV_USERNAME} and "
            f"{ENV_PASSWORD}, or mqtt.username and mqtt.password_file"
        )
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(f"{where}: {url!r} is no broker's address; {_ACCEPTED}{instead}")
    return parts.scheme, parts.hostname, port or PORTS[parts.scheme]


def open_broker(url: str, config: MqttConfig, where: str, instead: str = "") -> Broker:
    """Reads certificates and credentials. Raises UsageError for what cannot be read or does not belong together."""
    scheme, host, port = parse_url(url, where, instead)
    files = {"mqtt.ca": config.ca, "mqtt.certificate": config.certificate, "mqtt.key": config.key}
    if scheme == "mqtt" and any(files.values()):
        named = next(key for key, path in files.items() if path)
        raise UsageError(f"{named} is set, but {where} is mqtt://, which is not encrypted; accepted: mqtts://")
    if (config.certificate is None) != (config.key is None):
        raise UsageError("mqtt.certificate and mqtt.key belong together: one of them is not set")
    username, password = _credentials(config)
    return Broker(
        host=host,
        port=port,
        tls=_tls(config) if scheme == "mqtts" else None,
        client_certificate=config.certificate is not None,
        username=username,
        password=password,
        protocol=config.protocol,
        keepalive_s=max(1, round(config.keepalive)),
    )


def _credentials(config: MqttConfig) -> tuple[str | None, str | None]:
    username = os.environ.get(ENV_USERNAME) or config.username or None
    password = os.environ.get(ENV_PASSWORD)
    if password is None and config.password_file is not None:
        try:
            password = config.password_file.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"mqtt.password_file {str(config.password_file)!r} cannot be read: {error}") from None
    if password and not username:
        raise UsageError(f"there is an MQTT password but no user; set {ENV_USERNAME} or mqtt.username")
    return username, password


def _tls(config: MqttConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=_readable("mqtt.ca", config.ca))
        if config.certificate is not None:
            context.load_cert_chain(
                str(_readable("mqtt.certificate", config.certificate)), _readable("mqtt.key", config.key)
            )
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"mqtt.ca, mqtt.certificate or mqtt.key: not usable PEM files: {error}") from None
    return context


def _readable(key: str, path: Path | None) -> str | None:
    if path is not None and not path.is_file():
        raise UsageError(f"{key}: {str(path)!r} is not a file")
    return None if path is None else str(path)
