"""Credentials: reads them from the environment or from files, checks tokens, and removes them from text for logs."""

from __future__ import annotations

import hmac
import os
import re
from pathlib import Path
from urllib.parse import quote

from sagelink.pipeline.errors import UsageError

MIN_TOKEN_LENGTH = 12


def redact(text: str) -> str:
    """Returns the text with the user, password and query of every URL removed.

    A password may hold any character, so this removes too much rather than too little: everything up to the last `@`
    of a line, and everything from the first `?` of a URL to the end of the line.
    """
    return re.sub(r"(://[^?\n]*)\?.*", r"\1", re.sub(r"(?<=://).*@", "***@", text))


def expand_variables(source: str) -> str:
    """Replaces each `${NAME}` in a source by the environment variable NAME. Raises UsageError if it is not set.

    Values before the `@` of a URL are percent-encoded, because a password may hold any character.
    """
    at = source.rfind("@") if "://" in source else -1

    def value(name: re.Match[str]) -> str:
        if name[1] not in os.environ:
            raise UsageError(f"source {redact(source)!r}: {name[1]} is not set in the environment")
        return quote(os.environ[name[1]], safe="") if name.start() < at else os.environ[name[1]]

    return re.sub(r"\$\{(\w+)\}", value, source)


def load_secret(variable: str, key: str, path: Path | None) -> str | None:
    """The secret in an environment variable, or else in the file that the configuration key `key` names; None without
    either. Raises UsageError for a file that is empty or cannot be read."""
    value = os.environ.get(variable) or None
    if value is None and path is not None:
        try:
            value = path.read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{key} {str(path)!r} cannot be read: {error}") from None
        if value is None:
            raise UsageError(f"{key} {str(path)!r} is empty")
    return value


def check_token_length(token: str, owner: str) -> None:
    """Raises UsageError for a token that is too short to be a secret. `owner` names it in the message."""
    if len(token) < MIN_TOKEN_LENGTH:
        raise UsageError(f"the {owner} token has {len(token)} characters; accepted: {MIN_TOKEN_LENGTH} or more")


def load_bearer_token(variable: str, key: str, path: Path | None, owner: str) -> str | None:
    """A secret for an `Authorization: Bearer` header, read as `load_secret` does.

    Raises UsageError for a token that is too short, or that a header cannot carry.
    """
    token = load_secret(variable, key, path)
    if token is None:
        return None
    check_token_length(token, owner)
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError(f"the {owner} token has characters that a header cannot carry; accepted: printable ASCII")
    return token


def same_secret(given: str, expected: str) -> bool:
    """Compares two secrets; the time that this takes does not depend on where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())
