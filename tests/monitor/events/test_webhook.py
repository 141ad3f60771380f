"""Webhooks against a real receiver: signature, statuses, charges, bad addresses."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from bench.ports import free_port
from sagelink.monitor.events.alert_charges import AlertCharges
from sagelink.monitor.events.webhook import open_webhook
from sagelink.pipeline.config.events import WebhookConfig
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.outbox import OutboxItem
from tests.webhook_receiver import WebhookReceiver

ITEM = OutboxItem(1, "webhook", "gate-label-1-open-2", '{"id": "gate-label-1"}', 0.0, False)


async def test_an_event_is_posted_and_signed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + base64.b64encode(b"0123456789abcdef").decode())
    with WebhookReceiver() as receiver:
        hook = open_webhook(WebhookConfig(url=receiver.url, secret_file=secret), AlertCharges())
        assert (await hook.send(ITEM)).outcome == "delivered"
    ((path, headers, body),) = receiver.requests
    assert (path, body, headers["content-type"]) == ("/hook?site=1", ITEM.content.encode(), "application/json")
    signed = f"{ITEM.key}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(b"0123456789abcdef", signed, hashlib.sha256).digest()).decode()
    assert (headers["webhook-id"], headers["webhook-signature"]) == (ITEM.key, f"v1,{mac}")


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "delivered"), (301, "later"), (401, "later"), (422, "refused"), (503, "later")]
)
async def test_the_status_decides_what_follows(status: int, outcome: str) -> None:
    with WebhookReceiver() as receiver:
        receiver.status = status
        hook = open_webhook(WebhookConfig(url=receiver.url), AlertCharges())
        assert (await hook.send(ITEM)).outcome == outcome


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_a_receiver_that_is_away_gets_it_later(host: str) -> None:
    hook = open_webhook(WebhookConfig(url=f"http://{host}:{free_port()}/hook"), AlertCharges())
    attempt = await hook.send(ITEM)
    assert (attempt.outcome, bool(attempt.reason)) == ("later", True)


async def test_each_attempt_is_charged_with_at_least_its_bytes() -> None:
    charged: list[int] = []
    charges = AlertCharges()

    def try_charge(bits: int) -> bool:
        charged.append(bits)
        return True

    charges.charge_to(try_charge, charged.append)
    with WebhookReceiver() as receiver:
        await open_webhook(WebhookConfig(url=receiver.url), charges).send(ITEM)
    assert sum(charged) > 8 * (len(ITEM.content) + 300)
    assert not charges.pending()


@pytest.mark.parametrize("url", ["ftp://host/x", "host/x", "mqtt://host"])
def test_a_url_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"events\.webhook\.url: accepted: http"):
        load_config(None, {"events.webhook.url": url})


@pytest.mark.parametrize(
    "url", ["http:///x", "http://user:secret@host/x", "http://host:99999/x", "http://host/a b", "http://host/ä"]
)
def test_a_url_that_cannot_work_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(UsageError, match=r"events\.webhook\.url") as error:
        open_webhook(WebhookConfig(url=url), AlertCharges())
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("text", ["short", "whsec_!!!!"])
def test_a_secret_that_is_too_weak_is_refused(tmp_path: Path, text: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(text)
    with pytest.raises(UsageError, match="webhook secret"):
        open_webhook(WebhookConfig(url="http://host/", secret_file=secret), AlertCharges())
