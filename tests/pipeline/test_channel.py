"""Channels: policies, closing, counters, cancellation, several producers and consumers."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.channel import Channel, ChannelClosed
from tests.fakes import drained, settle


async def filled(channel: Channel[int], count: int) -> Channel[int]:
    for item in range(count):
        await channel.put(item)
    return channel


async def test_first_in_first_out():
    channel = await filled(Channel("c", capacity=3), 3)
    assert [await channel.get() for _ in range(3)] == [0, 1, 2]


async def test_wait_makes_the_producer_wait():
    channel = await filled(Channel("c", "wait", 2), 2)
    third = asyncio.create_task(channel.put(2))
    await settle()
    assert not third.done()
    assert len(channel) == 2
    assert await channel.get() == 0
    assert await third is None
    assert channel.drain() == [1, 2]
    assert channel.displaced == 0


async def test_drop_oldest_returns_the_oldest_item():
    channel: Channel[int] = Channel("c", "drop_oldest", 2)
    assert [await channel.put(item) for item in range(5)] == [None, None, 0, 1, 2]
    assert channel.drain() == [3, 4]


async def test_latest_has_room_for_one():
    channel: Channel[int] = Channel("c", "latest", capacity=9)
    assert channel.capacity == 1
    assert [await channel.put(item) for item in range(3)] == [None, 0, 1]
    assert await channel.get() == 2


@given(
    policy=st.sampled_from(["drop_oldest", "latest"]),
    capacity=st.integers(1, 4),
    puts=st.lists(st.booleans(), max_size=40),
)
async def test_dropping_policies_against_a_model(policy, capacity, puts):
    channel: Channel[int] = Channel("c", policy, capacity)
    model: deque[int] = deque()
    displaced = delivered = 0
    for item, put in enumerate(puts):
        if put:
            expected = model.popleft() if len(model) == channel.capacity else None
            model.append(item)
            displaced += expected is not None
            assert await channel.put(item) == expected
        elif model:
            delivered += 1
            assert await channel.get() == model.popleft()
        assert len(channel) == len(model) <= channel.capacity
    assert (channel.accepted, channel.delivered, channel.displaced) == (sum(puts), delivered, displaced)


@pytest.mark.parametrize("policy", ["wait", "drop_oldest", "latest"])
async def test_waiting_items_can_be_taken_after_close(policy):
    channel = await filled(Channel("c", policy, 2), 1)
    channel.close()
    assert await channel.get() == 0
    with pytest.raises(ChannelClosed):
        await channel.get()


@pytest.mark.parametrize("policy", ["wait", "drop_oldest", "latest"])
async def test_a_closed_channel_accepts_no_item(policy):
    channel = await filled(Channel("sent", policy, 1), 1)
    channel.close()
    with pytest.raises(ChannelClosed, match="sent"):
        await channel.put(1)
    assert channel.drain() == [0]
    assert channel.accepted == 1


async def test_close_wakes_waiting_producers_and_consumers():
    full = await filled(Channel("full", capacity=1), 1)
    empty: Channel[int] = Channel("empty")
    waiting = [asyncio.create_task(full.put(1)), asyncio.create_task(empty.get()), asyncio.create_task(empty.get())]
    await settle()
    full.close()
    empty.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ChannelClosed] * 3
    assert full.drain() == [0]


async def test_close_may_be_called_twice():
    channel = await filled(Channel("c"), 1)
    channel.close()
    channel.close()
    assert await drained(channel) == [0]


async def test_counters_account_for_every_item():
    channel: Channel[int] = Channel("c", "drop_oldest", 3)
    await filled(channel, 7)
    await channel.get()
    assert (channel.accepted, channel.delivered, channel.displaced, len(channel)) == (7, 1, 4, 2)


async def test_drain_takes_all_items_and_makes_room():
    channel = await filled(Channel("c", capacity=2), 2)
    waiting = asyncio.create_task(channel.put(2))
    await settle()
    assert channel.drain() == [0, 1]
    await waiting
    assert channel.drain() == [2]
    assert channel.drain() == []


async def test_a_cancelled_get_takes_no_item_and_blocks_no_other():
    channel: Channel[int] = Channel("c")
    first, second = asyncio.create_task(channel.get()), asyncio.create_task(channel.get())
    await settle()
    await channel.put(7)
    first.cancel()
    await settle()
    assert first.cancelled()
    assert await second == 7
    assert channel.delivered == 1


async def test_a_cancelled_put_adds_no_item_and_blocks_no_other():
    channel = await filled(Channel("c", capacity=1), 1)
    first, second = asyncio.create_task(channel.put(1)), asyncio.create_task(channel.put(2))
    await settle()
    assert await channel.get() == 0
    first.cancel()
    await settle()
    assert first.cancelled()
    assert second.done()
    assert channel.drain() == [2]
    assert channel.accepted == 2


async def test_one_item_wakes_one_consumer():
    channel: Channel[int] = Channel("c")
    consumers = [asyncio.create_task(channel.get()) for _ in range(3)]
    await settle()
    await channel.put(1)
    await settle()
    assert sum(consumer.done() for consumer in consumers) == 1
    channel.close()
    await asyncio.gather(*consumers, return_exceptions=True)


async def test_several_producers_and_consumers_pass_each_item_once():
    channel: Channel[int] = Channel("c", capacity=2)
    highest = 0

    async def produce(first: int) -> None:
        nonlocal highest
        for item in range(first, first + 50):
            await channel.put(item)
            highest = max(highest, len(channel))

    async def consume() -> list[int]:
        items = []
        async for item in channel:
            items.append(item)
            await asyncio.sleep(0)
        return items

    consumers = [asyncio.create_task(consume()) for _ in range(3)]
    await asyncio.gather(produce(0), produce(50), produce(100))
    channel.close()
    received = [await consumer for consumer in consumers]
    assert sorted(item for items in received for item in items) == list(range(150))
    assert sum(map(bool, received)) >= 2
    assert highest == 2


async def test_iteration_ends_when_the_channel_is_closed_and_empty():
    channel = await filled(Channel("c", capacity=3), 3)
    channel.close()
    assert [item async for item in channel] == [0, 1, 2]


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_below_one_is_an_error(capacity):
    with pytest.raises(ValueError, match=f"'frames' is {capacity}; accepted: 1 or more"):
        Channel("frames", capacity=capacity)


async def test_latest_holds_one_item_per_key_in_the_order_of_the_keys():
    channel: Channel[str] = Channel("c", "latest", key=lambda item: item[0])
    assert [await channel.put(item) for item in ("a1", "b1", "a2", "c1", "b2")] == [None, None, "a1", None, "b1"]
    assert channel.displaced == 2
    assert await channel.get_several(2) == ["a2", "b2"]
    assert await channel.get_several(2) == ["c1"]


async def test_get_several_returns_the_waiting_items_and_waits_for_the_first():
    channel = await filled(Channel("c", capacity=5), 5)
    assert await channel.get_several(3) == [0, 1, 2]
    assert await channel.get_several(3) == [3, 4]
    assert channel.delivered == 5
    waiting = asyncio.create_task(channel.get_several(3))
    await settle()
    assert not waiting.done()
    channel.close()
    with pytest.raises(ChannelClosed):
        await waiting
