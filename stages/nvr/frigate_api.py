"""Frigate's HTTP API, as far as Sagelink uses it: pictures of events, and their sub-labels.

Follows the documentation of Frigate 0.14 to 0.17. The parameters of `snapshot.jpg` work only while the event is in
progress (later versions: always); after its end, Frigate serves the file that it stored, and a clean copy without drawn
boxes under another name. The camera in the body of `sub_label` lets 0.15 find an event that is not in its database yet.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from sagelink.net.http_client import HttpAnswer, HttpService, HttpTooLarge, HttpUnreachable, http_service
from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.pipeline.credentials import load_bearer_token
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import DocumentError, parse_json
from sagelink.pipeline.files.json_text import to_json
from sagelink.stages.nvr.contract import MAX_PICTURE_BYTES, PictureMissing

ENV_TOKEN = "SAGELINK_FRIGATE_TOKEN"  # noqa: S105 (the name of a variable)
MAX_SUB_LABEL = 100  # characters that Frigate accepts
MAX_EVENTS = 256  # in one answer
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_EVENTS_BYTES = 2_000_000
_MAX_CONFIG_BYTES = 2_000_000
_AWAY = (*_REDIRECTS, 401, 403, 429, 502, 503, 504)  # whatever the event
_STORED = ("snapshot-clean.webp", "snapshot-clean.png")  # 0.17, 0.14 to 0.16


class Delivery(Enum):
    """What became of a sub-label."""

    WRITTEN = auto()
    NO_EVENT = auto()  # Frigate does not know the event, or not yet
    REFUSED = auto()  # Frigate will never take it
    LATER = auto()  # Frigate is away, or refuses the credentials


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What became of a sub-label, and why."""

    delivery: Delivery
    reason: str = ""


class FrigateApi:
    """Requests to one Frigate."""

    def __init__(self, service: HttpService) -> None:
        self._service = service

    @property
    def url(self) -> str:
        return self._service.url

    async def picture(self, event_id: str, ended: bool, crop: bool) -> bytes:
        """The coded picture of an event: of the object while it is in progress (with `crop`), else as Frigate stored
        it. Raises PictureMissing."""
        live = f"snapshot.jpg?bbox=0&timestamp=0&quality=95&crop={int(crop)}"
        answer = HttpAnswer(404, b"")
        for name in (*_STORED, live) if ended else (live,):
            try:
                answer = await self._service.request(
                    "GET", f"/api/events/{event_id}/{name}", max_bytes=MAX_PICTURE_BYTES
                )
            except HttpTooLarge as error:
                raise PictureMissing(f"{self.url}: {error}", outage=False) from None
            except HttpUnreachable as error:
                raise PictureMissing(f"{self.url}: {error}", outage=True) from None
            if answer.status == 200 and answer.body:
                return answer.body
            if answer.status in _AWAY:
                break
        raise PictureMissing(f"{self.url}: {_explain(answer)}", outage=answer.status in _AWAY)

    async def events(self, since_s: float) -> Sequence[object]:
        """Frigate's JSON of the events with a picture that began since a time of day, newest first, at most
        `MAX_EVENTS`. Raises PictureMissing."""
        path = f"/api/events?after={since_s:.0f}&has_snapshot=1&include_thumbnails=0&limit={MAX_EVENTS}"
        try:
            answer = await self._service.request("GET", path, max_bytes=_MAX_EVENTS_BYTES)
            content = parse_json(answer.body) if answer.status == 200 else None
        except (HttpUnreachable, DocumentError) as error:
            raise PictureMissing(f"{self.url}: {error}", outage=True) from None
        if not isinstance(content, list):
            raise PictureMissing(f"{self.url}: {_explain(answer)}", outage=True)
        return content

    async def set_sub_label(self, event_id: str, label: str, score: float, camera: str) -> DeliveryResult:
        """`label`: at most `MAX_SUB_LABEL` characters; `score`: above 0, at most 1."""
        body = to_json({"subLabel": label, "subLabelScore": score, "camera": camera}).encode()
        try:
            answer = await self._service.request("POST", f"/api/events/{event_id}/sub_label", body)
        except HttpUnreachable as error:
            return DeliveryResult(Delivery.LATER, f"{self.url}: {error}")
        reason = f"{self.url}: {_explain(answer)}"
        if 200 <= answer.status < 300:
            return DeliveryResult(Delivery.WRITTEN)
        if answer.status == 404:
            return DeliveryResult(Delivery.NO_EVENT, reason)
        if answer.status in (400, 413, 422):
            return DeliveryResult(Delivery.REFUSED, reason)
        return DeliveryResult(Delivery.LATER, reason)

    async def config(self) -> object:
        """Frigate's own configuration; None if Frigate does not answer."""
        try:
            answer = await self._service.request("GET", "/api/config", max_bytes=_MAX_CONFIG_BYTES)
            return parse_json(answer.body) if answer.status == 200 else None
        except (HttpUnreachable, DocumentError):
            return None

    async def sub_label(self, event_id: str) -> str | None:
        """The sub-label that the event has now; None if it has none or Frigate does not answer."""
        try:
            answer = await self._service.request("GET", f"/api/events/{event_id}")
            content = parse_json(answer.body) if answer.status == 200 else None
        except (HttpUnreachable, DocumentError):
            return None
        return sub_label_text(content.get("sub_label")) if isinstance(content, dict) else None


def sub_label_text(value: object) -> str | None:
    """The sub-label in Frigate's JSON: a text, a list of text and score, or null."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value else None


def open_frigate_api(config: FrigateConfig) -> FrigateApi:
    """Reads the token and the certificates. Raises UsageError."""
    tls = None
    if config.ca is not None:
        try:
            tls = ssl.create_default_context(cafile=str(config.ca))
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"frigate.ca {str(config.ca)!r} is not a usable PEM file: {error}") from None
    token = load_bearer_token(ENV_TOKEN, "frigate.token_file", config.token_file, "Frigate")
    return FrigateApi(http_service(config.url, "frigate.url", tls, token))


def _explain(answer: HttpAnswer) -> str:
    match answer.status:
        case 200:
            return "an empty answer"
        case 401 | 403:
            return f"the server refuses the credentials ({answer.status}); set {ENV_TOKEN} or frigate.token_file"
        case 404:
            return "not found (404)"
    if answer.status in _REDIRECTS:
        return f"the server redirects ({answer.status}); name the final address in frigate.url"
    return f"the server answers {answer.status}"
