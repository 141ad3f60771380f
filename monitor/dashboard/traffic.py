"""Counts what the dashboard sends to other machines, and charges it to the uplink budget if the configuration asks.

Loopback costs nothing. Charged bytes wait until the window has room; pictures for
which there is no room are not sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sagelink.net.http import is_loopback
from sagelink.pipeline.budget.wire_ledger import WireLedger

log = logging.getLogger(__name__)

_SEGMENT, _HEADER_BYTES = 1448, 66  # of TCP over IPv4 and Ethernet
_ACK_SHARE = 1.05  # acknowledgements of what the viewer sends
_RATE_S = 10.0
_RETRY_S = 0.05
_PIECE_SHARE = 8  # a piece of a response has at most this part of a window


class DashboardTraffic:
    """The traffic of all viewers on other machines."""

    def __init__(self, ledger: WireLedger | None = None) -> None:
        """`ledger`: pays for the traffic; None: it is only counted."""
        self._ledger = ledger
        self._recent: deque[tuple[float, int]] = deque()
        self._addresses: set[str] = set()  # of viewers that have been logged
        self.total_bits = 0

    def state(self) -> dict[str, Any]:
        """As JSON values: `sent_bits`, `rate_bps` over the last 10 s, and whether the budget pays."""
        self._forget(time.monotonic())
        rate_bps = sum(bits for _, bits in self._recent) / _RATE_S
        return {"sent_bits": self.total_bits, "rate_bps": rate_bps, "charged": self._ledger is not None}

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application, with everything that it sends to other machines counted."""

        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            client = scope.get("client")
            if scope["type"] not in ("http", "websocket") or client is None or is_loopback(client[0]):
                await app(scope, receive, send)
                return
            self._log(client[0])

            async def counted(message: Message) -> None:
                for piece in self._pieces(message):
                    if await self._pay(piece):
                        await send(piece)

            await app(scope, receive, counted)

        return counting

    def _pieces(self, message: Message) -> list[Message]:
        """The body of a response in pieces that fit a part of a window."""
        body = message.get("body", b"")
        limit_bits = None if self._ledger is None else self._ledger.limit_bits
        size = len(body) if limit_bits is None else max(256, limit_bits // 8 // _PIECE_SHARE)
        if message["type"] != "http.response.body" or len(body) <= size:
            return [message]
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        more = [True] * (len(pieces) - 1) + [message.get("more_body", False)]
        return [{**message, "body": piece, "more_body": goes_on} for piece, goes_on in zip(pieces, more, strict=True)]

    async def _pay(self, message: Message) -> bool:
        """Charges a message; False if it is a picture for which the window has no room now."""
        bits = message_bits(message)
        while self._ledger is not None and not self._ledger.try_charge("", bits):
            limit_bits = self._ledger.limit_bits
            if message.get("bytes") is not None or (limit_bits is not None and bits > limit_bits):
                return False
            await asyncio.sleep(_RETRY_S)
        now_s = time.monotonic()
        self._forget(now_s)
        self._recent.append((now_s, bits))
        self.total_bits += bits
        return True

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] <= now_s - _RATE_S:
            self._recent.popleft()

    def _log(self, address: str) -> None:
        if address not in self._addresses and len(self._addresses) < 1000:
            self._addresses.add(address)
            paid = "charged to the budget" if self._ledger else "not charged to the budget"
            log.warning("event=dashboard_viewer address=%s: what the page costs is %s; see /api/stats", address, paid)


def message_bits(message: Message) -> int:
    """Bits on the wire of one ASGI message, rather too many than too few."""
    text, headers = message.get("text") or "", message.get("headers", ())
    size = len(message.get("body") or b"") + len(message.get("bytes") or b"") + len(text.encode())
    size += sum(len(name) + len(value) + 4 for name, value in headers) + 16
    return round(8 * _ACK_SHARE * (size + (1 + size // _SEGMENT) * _HEADER_BYTES))
