"""Parses the URL of a server or broker: scheme, host and port, without credentials."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from sagelink.pipeline.errors import UsageError


@dataclass(frozen=True, slots=True)
class UrlRules:
    """The URLs that one transport accepts, and the words of its error messages."""

    schemes: Collection[str]
    server: str  # "an MQTT broker"
    accepted: str  # the accepted forms
    credentials: str  # where the credentials belong instead


def parse_server_url(
    url: str, where: str, rules: UrlRules, path_schemes: Collection[str] = ()
) -> tuple[str, str, int | None]:
    """Scheme, host and port (None if the URL has none). `where`: the configuration key or option of the URL.
    `path_schemes`: the schemes whose URLs may have a path.

    Raises UsageError, without repeating credentials.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{where}: the address is not a URL ({error}); accepted: {rules.accepted}") from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{where}: the URL must not contain credentials, because other users can see command lines. Set "
            f"{rules.credentials}"
        )
    has_path = parts.path not in ("", "/") and parts.scheme not in path_schemes
    has_more = has_path or parts.query or parts.fragment
    if parts.scheme not in rules.schemes or not parts.hostname or has_more:
        raise UsageError(f"{where}: {url!r} is not the address of {rules.server}; accepted: {rules.accepted}")
    return parts.scheme, parts.hostname, port


def url_host(host: str) -> str:
    """The host as a URL writes it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
