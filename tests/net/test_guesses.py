"""Guessing a token becomes slow, for each address by itself, in bounded memory."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from sagelink.net import guesses
from sagelink.net.access_guard import COOKIE, AccessGuard, Tokens, session_cookie
from sagelink.net.guesses import GuessLimit

TOKEN = "a-token-of-some-length"  # noqa: S105


def test_each_wrong_token_doubles_the_wait() -> None:
    limit, now_s, waits = GuessLimit(free=2), 0.0, []
    for _ in range(12):
        limit.wrong("a", now_s)
        waits.append(limit.wait_s("a", now_s))
        now_s += waits[-1]
    assert waits == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert limit.wait_s("b", now_s) == 0
    limit.right("a")
    limit.wrong("a", now_s)
    assert limit.wait_s("a", now_s) == 0


def test_a_thousand_guesses_a_second_become_a_few_an_hour() -> None:
    limit, tried = GuessLimit(), 0
    for tick in range(3600 * 1000):
        if tick % 1000 == 0 or tried < 10:
            now_s = tick / 1000
            if limit.wait_s("a", now_s) == 0:
                tried += 1
                limit.wrong("a", now_s)
    assert tried < 30


def test_wrong_tokens_are_forgotten_after_a_while() -> None:
    limit = GuessLimit(free=1)
    limit.wrong("a", 0.0)
    assert limit.wait_s("a", 0.5) == 0.5
    assert limit.wait_s("a", 1000.0) == 0


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "_MAX_ADDRESSES", 10)
    limit = GuessLimit(free=1)
    for number in range(1000):
        limit.wrong(str(number), 0.0)
    assert len(limit._addresses) == 10
    assert limit.wait_s("999", 0.0) == 1.0


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def test_the_guard_refuses_to_check_more_tokens_but_keeps_sessions_alive() -> None:
    client = TestClient(AccessGuard(Starlette(routes=[Route("/x", hello)]), Tokens(TOKEN), frozenset()))

    def status(token: str) -> int:
        return client.get("/x", headers={"authorization": f"Bearer {token}"}).status_code

    assert [status(f"wrong-{number}") for number in range(5)] == [401] * 5
    refused = client.get("/x", headers={"authorization": f"Bearer {TOKEN}"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert client.get("/x").status_code == 401
    client.cookies.set(COOKIE, session_cookie(TOKEN))
    assert client.get("/x").status_code == 200
