"""The WebRTC server's signalling address, token, TLS settings and ICE servers, read from configuration and environment.

Tokens and passwords come from the environment or a file, and are never printed.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sagelink.pipeline.config.link import WebRtcConfig
from sagelink.pipeline.credentials import load_bearer_token, load_secret
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.urls import WEBRTC_SCHEMES
from sagelink.transport.server_url import UrlRules, parse_server_url, url_host

if TYPE_CHECKING:
    from aiortc import RTCConfiguration

PORT = 8620
_BROWSER = "browser "
ENV_TOKEN, ENV_TURN_PASSWORD = "SAGELINK_WEBRTC_TOKEN", "SAGELINK_TURN_PASSWORD"
ALSO_WEBRTC = ", or webrtc+http(s)://host[:port]"  # for errors about a broker's address
_RULES = UrlRules(
    schemes=WEBRTC_SCHEMES,
    server="a WebRTC server",
    accepted="webrtc+http://host[:port] or webrtc+https://host[:port]",
    credentials=f"{ENV_TOKEN} or webrtc.token_file",
)


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server."""

    url: str
    username: str | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignallingEndpoint:
    """The HTTP address where an edge posts its offer to the server, and this side's credentials there."""

    host: str
    port: int
    tls: bool
    token: str | None = field(repr=False)
    ice_servers: tuple[IceServer, ...]
    tls_context: ssl.SSLContext | None = field(repr=False)  # used by an edge that connects over TLS

    @property
    def url(self) -> str:
        return f"webrtc+{'https' if self.tls else 'http'}://{url_host(self.host)}:{self.port}"

    def peer_configuration(self) -> RTCConfiguration:
        from aiortc import RTCConfiguration, RTCIceServer

        servers = [RTCIceServer(server.url, server.username, server.password) for server in self.ice_servers]
        return RTCConfiguration(servers)


def parse_url(url: str, where: str) -> tuple[bool, str, int]:
    """Whether the URL asks for TLS, host and port. Raises UsageError, without repeating credentials."""
    scheme, host, port = parse_server_url(url, where, _RULES)
    return WEBRTC_SCHEMES[scheme], host, port if port is not None else PORT


def open_signalling_endpoint(url: str, config: WebRtcConfig, where: str) -> SignallingEndpoint:
    """Reads the token and the certificates. Raises UsageError for unreadable files."""
    tls, host, port = parse_url(url, where)
    return SignallingEndpoint(
        host=host,
        port=port,
        tls=tls,
        token=load_bearer_token(ENV_TOKEN, "webrtc.token_file", config.token_file, "WebRTC"),
        ice_servers=_ice_servers(config),
        tls_context=_tls_context(config.ca) if tls else None,
    )


def _ice_servers(config: WebRtcConfig) -> tuple[IceServer, ...]:
    """Raises UsageError for a TURN server without credentials."""
    password = load_secret(ENV_TURN_PASSWORD, "webrtc.turn_password_file", config.turn_password_file)
    servers = []
    for url in config.ice_servers:
        is_turn = url.startswith("turn")
        if is_turn and not (config.turn_username and password):
            raise UsageError(
                f"webrtc.ice_servers {url!r}: a TURN server needs webrtc.turn_username and a password; set "
                f"{ENV_TURN_PASSWORD} or webrtc.turn_password_file"
            )
        servers.append(IceServer(url, config.turn_username if is_turn else None, password if is_turn else None))
    return tuple(servers)


def _tls_context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"webrtc.ca {str(ca)!r}: not a usable PEM file: {error}") from None


def browser_address(identifier: int) -> str:
    """The address of a browser that is a camera. No edge has such a one: it has a slash and no spaces."""
    return f"{_BROWSER}{identifier}"


def is_browser(address: str) -> bool:
    """Whether this is the address of a browser that is a camera."""
    return address.startswith(_BROWSER)
