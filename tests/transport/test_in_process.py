"""The link inside one process: capacity, closing, no framing. The contract of all links: test_contract.py."""

from __future__ import annotations

import asyncio

import pytest

from sagelink.transport.in_process import InProcessLink
from tests.fakes import settle


async def test_closing_refuses_waiting_senders_and_still_delivers_replies():
    link = InProcessLink(capacity=1)
    assert await link.send("door", b"first") is None
    waiting = asyncio.create_task(link.send("door", b"second"))
    replies = asyncio.create_task(anext(link.replies(), None))
    await settle()
    assert not waiting.done()
    assert not replies.done()
    link.close()
    assert await waiting == link.refusal() == "the link is closed"
    (message,) = [message async for message in link.messages()]
    assert message.data == b"first"
    assert await link.reply(message, b"reply")
    assert await replies == ("door", b"reply")
    async with link:
        pass
    assert await anext(link.replies(), None) is None
    assert not await link.reply(message, b"lost")


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
