"""Reads SDP offers of video peers before aiortc does: prepares their candidates, and names their codecs."""

from __future__ import annotations

import ipaddress
import re

_SHOWN = {"H264": "H.264", "H265": "H.265"}  # names of codecs, as people write them
_REPAIR = frozenset({"rtx", "red", "ulpfec", "flexfec-03"})  # payloads that repair other payloads
_MAX_NAMES = 8


def prepared(offer: str) -> str:
    """The offer without the candidates that are host names (mDNS: a browser hides its addresses), and without the
    statement that no more candidates come.

    aioice would wait for the names to resolve, and give up when none does. Instead it waits for the checks of the peer,
    which knows our addresses from the answer: the address that they come from is its candidate (peer-reflexive, RFC
    8445, section 7.3.1.3). So an offer without any candidate also connects. The caller limits the wait.
    """
    lines = [line for line in offer.splitlines(keepends=True) if not _is_named(line) and not _is_end(line)]
    return "".join(lines)


def _is_end(line: str) -> bool:
    return line.strip() == "a=end-of-candidates"


def _is_named(line: str) -> bool:
    """Whether a line is a candidate whose address is not a number: foundation, component, transport, priority, address
    (RFC 8839, section 5.1)."""
    fields = line.split()
    if not line.startswith("a=candidate:") or len(fields) < 5:
        return False
    try:
        ipaddress.ip_address(fields[4])
    except ValueError:
        return True
    return False


def video_codecs(offer: str) -> list[str]:
    """Names of the codecs in the video sections, in their order, as people write them; the first eight."""
    sections = [part for part in re.split(r"(?m)^m=", offer)[1:] if part.startswith("video")]
    names = re.findall(r"(?m)^a=rtpmap:\d+ ([\w.-]{1,20})/", "\n".join(sections))
    return [shown_codec(name) for name in dict.fromkeys(names) if name.lower() not in _REPAIR][:_MAX_NAMES]


def shown_codec(name: str) -> str:
    """A codec's name as people write it: `H.264` for `H264`."""
    return _SHOWN.get(name.upper(), name)
