"""Parses the URL of a server or broker, or of a cluster: scheme, hosts and ports, without credentials."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sagelink.pipeline.errors import UsageError

MAX_ADDRESSES = 16  # of a cluster
_AUTHORITY_END = re.compile("[/?#]")


@dataclass(frozen=True, slots=True)
class UrlRules:
    """The URLs that one transport accepts, and the words of its error messages."""

    schemes: Collection[str]
    server: str  # "an MQTT broker"
    accepted: str  # the accepted forms
    credentials: str  # where the credentials belong instead


def parse_server_url(
    url: str, where: str, rules: UrlRules, path_schemes: Collection[str] = (), part_of: str = ""
) -> tuple[str, str, int | None]:
    """Scheme, host and port (None if the URL has none). `where`: the configuration key or option of the URL.
    `path_schemes`: the schemes whose URLs may have a path. `part_of`: the URL that the user gave, if it is another one.

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
    wrong = has_path or parts.query or parts.fragment or any(map(str.isspace, url)) or "," in parts.netloc
    if parts.scheme not in rules.schemes or not parts.hostname or wrong:
        raise UsageError(
            f"{where}: {(part_of or url)!r} is not the address of {rules.server}; accepted: {rules.accepted}"
        )
    return parts.scheme, parts.hostname, port


def parse_cluster_url(
    url: str, where: str, rules: UrlRules, ports: Mapping[str, int], path_schemes: Collection[str] = ()
) -> tuple[str, tuple[tuple[str, int], ...]]:
    """Scheme and addresses (host, port) of a URL with one address, or with several and commas between them. `ports`:
    the default port of each scheme. For the rest see `parse_server_url`."""
    scheme, _, rest = url.partition("://")
    authority = _AUTHORITY_END.split(rest)[0]
    listed = [authority] if "@" in authority else authority.split(",")
    addresses: list[tuple[str, int]] = []
    for one in listed:
        key = where if len(listed) == 1 else f"{where}, address {one!r}"
        one_url = url if len(listed) == 1 else f"{scheme}://{one}{rest[len(authority) :]}"
        scheme, host, port = parse_server_url(one_url, key, rules, path_schemes, url)
        address = host, ports[scheme] if port is None else port
        if address[1] == 0 or address in addresses:
            what = "port 0" if address[1] == 0 else "an address twice"
            raise UsageError(f"{key}: {url!r} contains {what}; accepted: {rules.accepted}")
        addresses.append(address)
    if len(addresses) > MAX_ADDRESSES:
        raise UsageError(f"{where}: {len(addresses)} addresses; accepted: at most {MAX_ADDRESSES}")
    return scheme, tuple(addresses)


def cluster_url(scheme: str, addresses: Iterable[tuple[str, int]], path: str = "") -> str:
    return f"{scheme}://{','.join(f'{url_host(host)}:{port}' for host, port in addresses)}{path}"


def url_host(host: str) -> str:
    """The host as a URL writes it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
