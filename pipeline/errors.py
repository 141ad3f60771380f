"""The two kinds of errors that end a command, with their exit codes."""

from __future__ import annotations

from collections.abc import Sequence


class SagelinkError(Exception):
    """Ends a command with one clear message. `exit_code` 1: failed while running; 2: wrong use or configuration."""

    exit_code = 1


class UsageError(SagelinkError):
    """The user's input is invalid. The message names the value, where it was set, and what is accepted."""

    exit_code = 2


def suggest(word: str, accepted: Sequence[str]) -> str:
    """Returns ` (did you mean 'x'?)`, or an empty string if no accepted word is similar to `word`."""
    from difflib import get_close_matches

    names = {name.casefold(): name for name in reversed(accepted)}
    near = get_close_matches(word.casefold(), names, n=1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""
