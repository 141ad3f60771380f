"""Runs blocking functions in dedicated threads, so that the event loop never blocks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Worker:
    """One daemon thread that runs calls in order.

    Unlike the threads of an executor it does not delay the exit of the process, so a call that is stuck in native code
    (for example in a dead camera) cannot prevent Ctrl-C from ending the run.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._last: Callable[[], None] | None = None
        threading.Thread(target=self._run, name=f"sagelink-{name}", daemon=True).start()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs the function in the thread, returns its result. If the caller is cancelled, the result is discarded."""
        if self._closed:
            raise RuntimeError("the thread has been closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((loop, future, lambda: function(*args, **kwargs)))
        return await future

    def close(self, last: Callable[[], None] | None = None) -> None:
        """Ends the thread after the queued calls and then `last`; does not wait for its end."""
        self._closed = True
        self._last = last
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, function = job
            if future.cancelled():
                continue
            result: object = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as caught:  # passed on to the caller
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_settle, future, result, error)
            del job, function, result, error, future  # release the frame before the next call
        if self._last is not None:
            self._last()


class InThread:
    """A stage that calls a blocking function of one item in a dedicated thread."""

    def __init__(self, name: str, function: Callable[[Any], object]) -> None:
        self._function = function
        self._worker = Worker(name)

    async def __aenter__(self) -> InThread:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._worker.close()

    async def process(self, item: object) -> object:
        return await self._worker.call(self._function, item)


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if isinstance(error, StopIteration):  # a future cannot raise it
        error = RuntimeError("StopIteration left a worker call")
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
