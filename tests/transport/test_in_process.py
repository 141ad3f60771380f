"""The link inside one process: order, room, closing."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes import settle
from transport.in_process import InProcessLink


async def test_messages_and_replies_arrive_in_order():
    link = InProcessLink()
    assert [await link.send(bytes([i])) for i in range(3)] == [True] * 3
    for i in range(3):
        await link.reply(bytes([10 + i]))
    link.close()
    assert [message async for message in link.messages()] == [b"\0", b"\1", b"\2"]
    assert [reply async for reply in link.replies()] == [b"\n", b"\x0b", b"\x0c"]


async def test_bytes_arrive_as_they_were_sent():
    link = InProcessLink()
    message = bytes(range(256))
    await link.send(message)
    assert await anext(link.messages()) == message


async def test_a_closed_link_refuses():
    link = InProcessLink()
    link.close()
    assert await link.send(b"late") is False
    assert [message async for message in link.messages()] == []


async def test_closing_ends_both_sides_and_refuses_who_waits_for_room():
    link = InProcessLink(capacity=1)
    assert await link.send(b"first")
    waiting = asyncio.create_task(link.send(b"second"))
    replies = asyncio.create_task(anext(link.replies(), None))
    await settle()
    assert not waiting.done()
    assert not replies.done()
    link.close()
    assert await waiting is False
    assert await replies is None
    assert [message async for message in link.messages()] == [b"first"]


async def test_a_full_link_makes_the_sender_wait():
    link = InProcessLink(capacity=2)
    messages = link.messages()
    sending = [asyncio.create_task(link.send(bytes([i]))) for i in range(3)]
    await settle()
    assert [task.done() for task in sending] == [True, True, False]
    assert await anext(messages) == b"\0"
    assert await sending[2] is True


async def test_closing_twice_is_closing():
    link = InProcessLink()
    link.close()
    link.close()
    assert await link.send(b"") is False


@pytest.mark.parametrize("size", [0, 1, 1500, 10**6])
def test_there_is_no_framing(size):
    assert InProcessLink().wire_bits(size) == 8 * size
