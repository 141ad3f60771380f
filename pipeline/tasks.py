"""Small asyncio tools: scoped background tasks, the first error of a group, signal handlers, the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import stat
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor

# Before Python 3.13, a task group loses a cancellation that arrives together with the error of one of its tasks.
_CANCEL_AGAIN_S = 1.0


@contextlib.asynccontextmanager
async def background(
    coroutine: Coroutine[object, object, None], cancel_again_s: float = _CANCEL_AGAIN_S
) -> AsyncIterator[None]:
    """Runs the coroutine while the body runs, and cancels it when the body ends. Its error cancels the body.

    `cancel_again_s`: interval at which the cancellation is repeated until the coroutine has ended.
    """
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(coroutine)
            try:
                yield
            finally:
                while not task.done():
                    task.cancel()
                    await asyncio.wait({task}, timeout=cancel_again_s)
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in nested exception groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def stop_signals() -> list[signal.Signals]:
    """The signals that ask a command to stop: Ctrl-C, SIGTERM, and SIGHUP when the terminal closes.

    A SIGHUP that is ignored, as under `nohup`, stays ignored.
    """
    names = ["SIGINT", "SIGTERM", "SIGHUP"]
    signals = [signal.Signals[name] for name in names if name in signal.Signals.__members__]  # Windows has no SIGHUP
    return [each for each in signals if each.name != "SIGHUP" or signal.getsignal(each) is not signal.SIG_IGN]


def leave_terminal(number: int) -> None:
    """After SIGHUP the terminal is gone: what is printed from now on is discarded, instead of an I/O error."""
    if number != getattr(signal, "SIGHUP", None):
        return
    with open(os.devnull, "wb") as nowhere:
        for stream in (1, 2):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nowhere.fileno(), stream)


def on_signals(end: Callable[[], None]) -> None:
    """Calls `end` in the running loop at each of `stop_signals`, if this thread can handle signals."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        leave_terminal(number)
        end()

    for number in stop_signals():
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            loop.add_signal_handler(number, stop, number)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """The `stop_signals` do nothing while the body runs, where this thread may decide that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: a handler that Python did not install


def run_loop(main: Coroutine[object, object, None], fast: bool) -> None:
    """Like `asyncio.run`. `fast`: uses uvloop if it is installed, for links with many small packets."""
    factory = None
    if fast:
        with contextlib.suppress(ImportError):
            factory = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def abandon_threads_at_exit() -> None:
    """Lets the running loop end although a library call blocks in its executor, such as a connect to a silent host."""
    asyncio.get_running_loop().set_default_executor(
        _AbandoningExecutor(max_workers=4, thread_name_prefix="sagelink-io")
    )


class _AbandoningExecutor(ThreadPoolExecutor):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)
