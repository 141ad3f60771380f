"""Credentials in addresses: they come from the environment, and are shown to nobody."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from pipeline.errors import UsageError


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
