"""The link inside one process: room, closing, no framing. What every link keeps: test_contract.py."""

from __future__ import annotations

import asyncio

import pytest

from sagelink.transport.in_process import InProcessLink
from sagelink.transport.link import Message
from tests.fakes import settle


async def test_closing_ends_both_sides_and_refuses_who_waits_for_room():
    link = InProcessLink(capacity=1)
    assert await link.send("door", b"first") is None
    waiting = asyncio.create_task(link.send("door", b"second"))
    replies = asyncio.create_task(anext(link.replies(), None))
    await settle()
    assert not waiting.done()
    assert not replies.done()
    link.close()
    assert await waiting == link.refusal() == "the link is closed"
    assert await replies is None
    assert [message.data async for message in link.messages()] == [b"first"]
    await link.reply(Message("door", b"", 0.0), b"lost without a word")


async def test_a_full_link_makes_the_sender_wait():
    link = InProcessLink(capacity=2)
    messages = link.messages()
    sending = [asyncio.create_task(link.send("door", bytes([i]))) for i in range(3)]
    await settle()
    assert [task.done() for task in sending] == [True, True, False]
    assert (await anext(messages)).data == b"\0"
    assert await sending[2] is None


@pytest.mark.parametrize("size", [0, 1, 1500, 10**6])
def test_there_is_no_framing(size):
    assert InProcessLink().wire_bits("door", size) == 8 * size
