"""Credentials in addresses: they come from the environment, and are shown to nobody."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from sagelink.pipeline.errors import UsageError

SHORTEST_TOKEN = 12


def redact(text: str) -> str:
    """The text without user, password and query of the addresses in it.

    Passwords may hold any character, so it rather cuts too much: up to the last `@` of a line, and from the first `?`
    of an address to the line's end.
    """
    return re.sub(r"(://[^?\n]*)\?.*", r"\1", re.sub(r"(?<=://).*@", "***@", text))


def from_environment(source: str) -> str:
    """The source with the variables of the environment that it names as `${NAME}`. Raises UsageError.

    What stands before the `@` of an address is encoded as a URL needs it: a password may hold any character.
    """
    at = source.rfind("@") if "://" in source else -1

    def value(name: re.Match[str]) -> str:
        if name[1] not in os.environ:
            raise UsageError(f"source {redact(source)!r}: {name[1]} is not set in the environment")
        return quote(os.environ[name[1]], safe="") if name.start() < at else os.environ[name[1]]

    return re.sub(r"\$\{(\w+)\}", value, source)


def secret(variable: str, key: str, path: Path | None) -> str | None:
    """From the environment, or else from a file. Raises UsageError for a file that holds none."""
    found = os.environ.get(variable) or None
    if found is None and path is not None:
        try:
            found = path.read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{key} {str(path)!r} cannot be read: {error}") from None
        if found is None:
            raise UsageError(f"{key} {str(path)!r} is empty")
    return found


def bearer_token(variable: str, key: str, path: Path | None, what: str) -> str | None:
    """A secret that a header carries. Raises UsageError for one that is too short to be a secret."""
    token = secret(variable, key, path)
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise UsageError(f"the {what} token has {len(token)} characters; accepted: {SHORTEST_TOKEN} or more")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError(f"the {what} token has characters that a header cannot carry; accepted: printable ASCII")
    return token
