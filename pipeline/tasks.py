"""Small asyncio tools: a task with a scope, and the cause in a group of errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine


@contextlib.asynccontextmanager
async def background(coroutine: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Runs the coroutine beside the body, and cancels it when the body ends. Its error cancels the body."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine)
        try:
            yield
        finally:
            task.cancel()


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single error in a group of groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
