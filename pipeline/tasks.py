"""Small asyncio tools: a task with a scope, the cause in a group of errors, signals."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

# Before Python 3.12 `asyncio.wait_for`, which aiomqtt uses, loses a cancellation that comes together with its result.
_AGAIN_S = 1.0


@contextlib.asynccontextmanager
async def background(coroutine: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Runs the coroutine beside the body, and cancels it when the body ends. Its error cancels the body."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(coroutine)
            try:
                yield
            finally:
                while not task.done():
                    task.cancel()
                    await asyncio.wait({task}, timeout=_AGAIN_S)
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single error in a group of groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def on_signals(end: Callable[[], None]) -> None:
    """Calls `end` in the running loop at each Ctrl-C or SIGTERM, where this thread may watch for them."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            loop.add_signal_handler(number, end)


def run_loop(main: Coroutine[object, object, None], fast: bool) -> None:
    """`asyncio.run`; `fast`: with uvloop where it is installed, for links of many small packets."""
    factory = None
    if fast:
        with contextlib.suppress(ImportError):
            factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def abandon_threads_at_exit() -> None:
    """A library's blocking call in the loop's executor (connecting to a host that is silent) does not hold its end."""
    asyncio.get_running_loop().set_default_executor(_Impatient(max_workers=4, thread_name_prefix="sagelink-io"))


class _Impatient(ThreadPoolExecutor):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)
