"""Posts events to a URL as JSON, signed by HMAC: https://www.standardwebhooks.com, version 1.

`webhook-id` is the same for each attempt, `webhook-timestamp` is the time of the attempt in seconds since 1970, and
`webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sagelink.monitor.events.alert_charges import AlertCharges
from sagelink.monitor.events.delivery import Attempt
from sagelink.net.http_client import HttpService, HttpUnreachable, http_service
from sagelink.pipeline.config.events import WebhookConfig
from sagelink.pipeline.credentials import load_secret
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.outbox import OutboxItem
from sagelink.transport.mqtt.wire_cost import MqttCostModel
from sagelink.transport.tcp_counters import read_counters

ENV_SECRET = "SAGELINK_WEBHOOK_SECRET"  # noqa: S105 (the name of a variable)
_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 65_536  # of the answer's body, which is not used
_NEVER = {400, 405, 413, 415, 422}  # statuses of a receiver that refuses the message itself
_HEADER_BYTES = 500  # of the request, beside its body
_EMPTY_SEGMENTS = 8  # connecting, acknowledgements, closing
_NAME_LOOKUP_BYTES = 2 * (42 + 80)  # two queries for the address
_CLOSING_SEGMENTS = 2  # that leave after the counters have been read
_MIN_SECRET = 12


@dataclass(frozen=True, slots=True)
class Webhook:
    """One receiver."""

    service: HttpService
    target: str  # path and query
    secret: bytes | None = field(repr=False)
    charges: AlertCharges
    clock_s: Callable[[], float] = time.time

    async def send(self, item: OutboxItem) -> Attempt:
        """One attempt."""
        body = item.content.encode()
        cost = MqttCostModel(tls=None if self.service.tls is None else "TLSv1.3")
        estimate = self._estimate_bits(cost, len(body))
        await self.charges.charge(estimate)
        headers = signature_headers(item.key, body, self.secret, self.clock_s())
        counted = 0

        def count(connection: socket.socket) -> None:
            nonlocal counted
            if (counters := read_counters(connection)) is not None:
                segments = counters.segments_sent + _CLOSING_SEGMENTS
                counted = 8 * (counters.bytes_sent + segments * cost.header_bytes)

        try:
            answer = await self.service.request(
                "POST",
                self.target,
                body,
                headers=headers,
                timeout_s=_TIMEOUT_S,
                max_bytes=_MAX_ANSWER_BYTES,
                on_end=count,
            )
        except HttpUnreachable as error:
            return Attempt("later", str(error))
        finally:
            self.charges.charge_excess(counted + 8 * _NAME_LOOKUP_BYTES - estimate)
        if 200 <= answer.status < 300:
            return Attempt("delivered")
        return Attempt("refused" if answer.status in _NEVER else "later", f"HTTP status {answer.status}")

    def _estimate_bits(self, cost: MqttCostModel, body_bytes: int) -> int:
        """Uplink bits of one request over a new connection."""
        request = cost.packet_bits(len(self.target) + _HEADER_BYTES + body_bytes, _EMPTY_SEGMENTS)
        handshake = 8 * (1000 + 3 * cost.header_bytes) if cost.tls else 0
        return request + handshake + 8 * _NAME_LOOKUP_BYTES


def signature_headers(key: str, body: bytes, secret: bytes | None, now_s: float) -> dict[str, str]:
    """The headers that name and sign a message."""
    headers = {"webhook-id": key, "webhook-timestamp": str(int(now_s))}
    if secret is not None:
        signed = f"{key}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(secret, signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def open_webhook(config: WebhookConfig, charges: AlertCharges) -> Webhook:
    """The receiver at `events.webhook`. Raises UsageError for a URL or a file that can never work."""
    parts = urlsplit(config.url)
    base, where = f"{parts.scheme}://{parts.netloc}", "events.webhook.url"
    service = http_service(base, where, _authorities(config) if parts.scheme == "https" else None, None)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        raise UsageError(f"{where}: path or query has characters that a URL cannot have; accepted: ASCII, % escapes")
    return Webhook(service, target, _secret(config), charges)


def _authorities(config: WebhookConfig) -> ssl.SSLContext | None:
    if config.ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(config.ca))
    except OSError as error:
        raise UsageError(f"events.webhook.ca {str(config.ca)!r} is not a usable PEM file: {error}") from None


def _secret(config: WebhookConfig) -> bytes | None:
    text = load_secret(ENV_SECRET, "events.webhook.secret_file", config.secret_file)
    if text is None:
        return None
    try:
        secret = base64.b64decode(text[6:], validate=True) if text.startswith("whsec_") else text.encode()
    except binascii.Error:
        raise UsageError("the webhook secret begins with whsec_, but the rest is not base64") from None
    if len(secret) < _MIN_SECRET:
        raise UsageError(f"the webhook secret has {len(secret)} bytes; accepted: {_MIN_SECRET} or more")
    return secret
