"""Where edge and server meet, and what they show each other. A token comes from the environment or a file."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sagelink.pipeline.config import WebRtcConfig
from sagelink.pipeline.credentials import load_bearer_token, load_secret
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.urls import WEBRTC_SCHEMES

if TYPE_CHECKING:
    from aiortc import RTCConfiguration

PORT = 8620
ENV_TOKEN, ENV_TURN_PASSWORD = "SAGELINK_WEBRTC_TOKEN", "SAGELINK_TURN_PASSWORD"
INSTEAD = ", or webrtc+http(s)://host[:port]"  # of a broker's address
_ACCEPTED = "accepted: webrtc+http://host[:port] or webrtc+https://host[:port]"


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server."""

    url: str
    username: str | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignallingEndpoint:
    """One HTTP address for offers, and what this side needs there."""

    host: str
    port: int
    tls: bool
    token: str | None = field(repr=False)
    ice_servers: tuple[IceServer, ...]
    trusted: ssl.SSLContext | None = field(repr=False)  # of an edge that goes to a server over TLS

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"webrtc+{'https' if self.tls else 'http'}://{host}:{self.port}"

    def peer_configuration(self) -> RTCConfiguration:
        from aiortc import RTCConfiguration, RTCIceServer

        return RTCConfiguration([RTCIceServer(each.url, each.username, each.password) for each in self.ice_servers])


def parse_url(url: str, where: str) -> tuple[bool, str, int]:
    """TLS or not, host and port. Raises UsageError; credentials are not repeated there."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{where}: the address is not a URL ({error}); {_ACCEPTED}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{where}: a URL carries no credentials: commands are seen by others. Set {ENV_TOKEN} or webrtc.token_file"
        )
    if parts.scheme not in WEBRTC_SCHEMES or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise UsageError(f"{where}: {url!r} is no address of a WebRTC server; {_ACCEPTED}")
    return WEBRTC_SCHEMES[parts.scheme], parts.hostname, port if port is not None else PORT


def open_signalling_endpoint(url: str, config: WebRtcConfig, where: str) -> SignallingEndpoint:
    """Reads the token and certificates. Raises UsageError for what cannot be read."""
    tls, host, port = parse_url(url, where)
    return SignallingEndpoint(
        host=host,
        port=port,
        tls=tls,
        token=read_token(config),
        ice_servers=ice_servers(config),
        trusted=_trusted(config.ca) if tls else None,
    )


def read_token(config: WebRtcConfig) -> str | None:
    """The bearer token. Raises UsageError for one that is too short to be a secret."""
    return load_bearer_token(ENV_TOKEN, "webrtc.token_file", config.token_file, "WebRTC")


def ice_servers(config: WebRtcConfig) -> tuple[IceServer, ...]:
    password = load_secret(ENV_TURN_PASSWORD, "webrtc.turn_password_file", config.turn_password_file)
    servers = []
    for url in config.ice_servers:
        relays = url.startswith("turn")
        if relays and not (config.turn_username and password):
            raise UsageError(
                f"webrtc.ice_servers {url!r}: a TURN server wants webrtc.turn_username and a password; set "
                f"{ENV_TURN_PASSWORD} or webrtc.turn_password_file"
            )
        servers.append(IceServer(url, config.turn_username if relays else None, password if relays else None))
    return tuple(servers)


def _trusted(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"webrtc.ca {str(ca)!r}: not a usable PEM file: {error}") from None
