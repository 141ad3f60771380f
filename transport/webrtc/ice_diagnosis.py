"""Why two peers find no way to each other, from the candidates that each side has named. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

# a=candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE (RFC 8839, 5.1)
_CANDIDATE = re.compile(r"^a=candidate:\S+ \d+ \S+ \d+ (\S+) \d+ typ (\w+)", re.MULTILINE)
_SHOWN = 4  # addresses of a side


def diagnose_ice(local: str, remote: str, servers: Sequence[str]) -> str:
    """What is in the way, and what to do. `local` and `remote` describe this and the other side (SDP); `servers`: this
    side's STUN and TURN servers."""
    here, there = _CANDIDATE.findall(local), _CANDIDATE.findall(remote)
    for side, candidates in (("this machine", here), ("the other side", there)):
        if not candidates:
            return (
                f"{side} has no address but loopback, which ICE leaves out; it needs a network, or a broker (mqtt://)"
            )
    found = {kind for _, kind in here}
    if any(each.startswith("turn") for each in servers) and "relay" not in found:
        return (
            "the TURN server gives no relay: is it reached, and are webrtc.turn_username and the password those that "
            "it knows?"
        )
    if any(each.startswith("stun") for each in servers) and "srflx" not in found:
        return "the STUN server does not answer: is it reached?"
    blocked = f"no UDP gets through between {_addresses(here)} here and {_addresses(there)} there: a firewall or NAT"
    if "relay" in found:
        return f"{blocked}, which the relay of this side's TURN server does not reach around either"
    return f"{blocked}; accepted: a TURN server in webrtc.ice_servers of either side, for NAT alone also a STUN server"


def _addresses(candidates: Sequence[tuple[str, str]]) -> str:
    names = [*dict.fromkeys(address for address, _ in candidates)]
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
