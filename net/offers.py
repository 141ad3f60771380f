"""Limits for a WebRTC offer. Each candidate in it makes this machine send packets to an address that the offer names,
which may belong to somebody else; so few candidates are kept, and fewer of foreign addresses.

A connection does not depend on the dropped candidates: the answer names our addresses, and the checks that the peer
sends to them show us where it is (peer-reflexive candidates).
"""

from __future__ import annotations

import ipaddress
import re

MAX_OFFER_BYTES = 32_768
MAX_SECTIONS = 8
MAX_CANDIDATES = 6  # that are kept, in the whole offer
MAX_FOREIGN = 2  # of them, those with public addresses that are not the sender's
_MAX_LINE = 4096  # characters
_MAX_PORT = 65_535
_FINGERPRINT = re.compile(r"^a=fingerprint:sha-(?:256|384|512) [0-9A-F]{2}(?::[0-9A-F]{2})+\s*$", re.I | re.M)
_SETUP = re.compile(r"^a=setup:(?:actpass|active|passive)\s*$", re.M)


class OfferRefused(Exception):
    """An offer is refused; `status` is the HTTP status of the response."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


def limit_offer(offer: str, sender: str) -> str:
    """The offer without surplus candidates; `sender` is the IP address that posted it. Raises OfferRefused.

    UDP candidates are kept by their order of preference: the sender's own address, private addresses and names, and
    foreign addresses; within each, by the priority that the offer gives.
    """
    if len(offer) > MAX_OFFER_BYTES:
        raise OfferRefused(f"an offer has at most {MAX_OFFER_BYTES} bytes", 413)
    lines = offer.replace("\r\n", "\n").split("\n")
    if any(len(line) > _MAX_LINE for line in lines):
        raise OfferRefused(f"a line of an offer has at most {_MAX_LINE} characters")
    if sum(line.startswith("m=") for line in lines) > MAX_SECTIONS:
        raise OfferRefused(f"an offer has at most {MAX_SECTIONS} sections")
    kept = _choose([line for line in lines if _is_candidate(line)], sender)
    chosen = [line for line in lines if not _is_candidate(line) or line in kept]
    return "\r\n".join(chosen)


def check_encryption(offer: str) -> None:
    """Raises OfferRefused if an offer with sections lacks what a DTLS handshake needs: aiortc answers such an offer,
    and fails when the handshake starts."""
    if "\nm=" not in offer:
        return
    if not _FINGERPRINT.search(offer):
        raise OfferRefused("the offer has no usable a=fingerprint; accepted: sha-256, sha-384 or sha-512")
    if not _SETUP.search(offer):
        raise OfferRefused("the offer has no usable a=setup; accepted: actpass, active or passive")


def why_unusable(error: Exception) -> str:
    """The reason that aiortc gives for an offer that it cannot use; its parser raises many kinds of errors."""
    return str(error) or f"a line of it cannot be read ({type(error).__name__})"


def _is_candidate(line: str) -> bool:
    return line.startswith("a=candidate:")


def _choose(candidates: list[str], sender: str) -> set[str]:
    """The candidate lines to keep. Bundled sections repeat candidates, which then count once."""
    parsed = {line: place for line in candidates if (place := _parse(line)) is not None}
    ranked = sorted(
        (_rank(address, sender), -priority, address, port, line) for line, (address, port, priority) in parsed.items()
    )
    places: list[tuple[str, str]] = []
    kept: set[str] = set()
    foreign = 0
    for rank, _, address, port, line in ranked:
        if (address, port) not in places:
            if len(places) >= MAX_CANDIDATES or (rank == _FOREIGN and foreign >= MAX_FOREIGN):
                continue
            places.append((address, port))
            foreign += rank == _FOREIGN
        kept.add(line)
    return kept


def _parse(line: str) -> tuple[str, str, int] | None:
    """Address, port and priority of a UDP candidate; None for any other line. FFmpeg leaves the priority out."""
    words = line.split()
    if len(words) < 6 or words[2].lower() != "udp":
        return None
    has_priority = words[3].isdecimal()
    address, port = words[4:6] if has_priority else words[3:5]
    if not port.isascii() or not port.isdecimal() or not 0 < int(port[:6]) <= _MAX_PORT:
        return None
    return address, port, int(words[3][:10]) if has_priority else 0


_OWN, _PRIVATE, _FOREIGN = range(3)


def _rank(address: str, sender: str) -> int:
    if address == sender:
        return _OWN
    try:
        return _PRIVATE if not ipaddress.ip_address(address).is_global else _FOREIGN
    except ValueError:
        return _PRIVATE if address.endswith(".local") else _FOREIGN
