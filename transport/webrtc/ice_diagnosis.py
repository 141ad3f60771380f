"""Explains why two peers could not connect, from the ICE candidates that each side offered. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

# a=candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE (RFC 8839, 5.1)
_CANDIDATE = re.compile(r"^a=candidate:\S+ \d+ \S+ \d+ (\S+) \d+ typ (\w+)", re.MULTILINE)
_MAX_ADDRESSES = 4  # named per side


def diagnose_ice(local_sdp: str, remote_sdp: str, servers: Sequence[str]) -> str:
    """The likely cause and its remedy. `servers`: URLs of this side's STUN and TURN servers."""
    local, remote = _CANDIDATE.findall(local_sdp), _CANDIDATE.findall(remote_sdp)
    for side, candidates in (("this machine", local), ("the other side", remote)):
        if not candidates:
            return f"{side} has only a loopback address, which ICE ignores; use a network, or a broker (mqtt://)"
    types = {candidate_type for _, candidate_type in local}
    if any(server.startswith("turn") for server in servers) and "relay" not in types:
        return (
            "the TURN server gives no relay; check that it can be reached and accepts webrtc.turn_username and its "
            "password"
        )
    if any(server.startswith("stun") for server in servers) and "srflx" not in types:
        return "the STUN server does not answer; check that it can be reached"
    blocked = (
        f"no UDP passes between {_addresses(local)} (this machine) and {_addresses(remote)} (the other side), because "
        "of a firewall or NAT"
    )
    if "relay" in types:
        return f"{blocked}; the relay of this side's TURN server does not get around it either"
    return f"{blocked}; accepted: a TURN server in webrtc.ice_servers of either side, for NAT alone also a STUN server"


def _addresses(candidates: Sequence[tuple[str, str]]) -> str:
    names = [*dict.fromkeys(address for address, _ in candidates)]
    return ", ".join(names[:_MAX_ADDRESSES]) + (" ..." if len(names) > _MAX_ADDRESSES else "")
