"""The open session: its tasks, and what is published in it."""

from __future__ import annotations

import asyncio

import aiomqtt
import pytest

from sagelink.transport.mqtt.open_session import OpenSession


class Client:
    """Confirms what is published, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    async def publish_confirmed(self, topic: str, payload: bytes, for_somebody: bool) -> str | None:
        if self.fails:
            raise aiomqtt.MqttError("lost")
        return "nobody has subscribed" if for_somebody else None


async def test_messages_are_published_while_a_session_is_open() -> None:
    session = OpenSession()
    with pytest.raises(ConnectionError):
        await session.publish("test/event", b"x")
    async with session.running(Client()):
        assert session.is_open
        assert await session.publish("test/event", b"x") is None
        assert await session.publish("test/picture", b"x", for_somebody=True) == "nobody has subscribed"
    assert not session.is_open


async def test_a_task_that_fails_ends_the_session() -> None:
    session, answers = OpenSession(), []

    async def ask() -> None:
        try:
            await session.publish("test/event", b"x")
        except ConnectionError as error:
            answers.append(str(error))

    async def serve() -> None:
        async with session.running(Client(fails=True)):
            await asyncio.gather(ask(), asyncio.Event().wait())

    with pytest.raises(ExceptionGroup) as raised:
        await serve()
    assert isinstance(raised.value.exceptions[0], aiomqtt.MqttError)
    assert answers == ["the connection broke off before the broker confirmed a message"]
    assert not session.is_open


async def test_whoever_waits_is_woken_when_a_session_begins() -> None:
    session = OpenSession()
    waiting = asyncio.create_task(session.opened())
    await asyncio.sleep(0)
    assert not waiting.done()
    async with session.running(Client()):
        session.began()
        await waiting
