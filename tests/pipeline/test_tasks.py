"""A background task ends with its body, even if a library loses the cancellation."""

from __future__ import annotations

import asyncio

import pytest

from sagelink.pipeline.tasks import background
from tests.patience import PATIENCE_S


async def test_it_is_cancelled_with_the_body():
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with background(work()):
        await asyncio.sleep(0)
    assert ended.is_set()


async def test_a_lost_cancellation_is_repeated():
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while lost < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE_S), background(stubborn(), cancel_again_s=0.0):
        await asyncio.sleep(0)
    assert lost == 3


async def test_its_error_ends_the_body():
    async def fails() -> None:
        raise ValueError("beside")

    with pytest.raises(ValueError, match="beside"):
        async with background(fails()):
            await asyncio.Event().wait()
