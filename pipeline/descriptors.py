"""File descriptors of this process: raises their limit at the start."""

from __future__ import annotations

import contextlib

_WANTED = 65_536
_UNKNOWN = 1024


def descriptor_limit() -> int:
    """How many descriptors this process may have open."""
    with contextlib.suppress(ImportError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return _WANTED if soft == resource.RLIM_INFINITY else soft
    return _UNKNOWN


def raise_descriptor_limit() -> None:
    """Raises the soft limit to the hard one, or to 65,536: the usual soft limit of 1,024 is for programs that call
    `select`."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
