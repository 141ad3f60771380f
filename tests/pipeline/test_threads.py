"""The worker thread: order, errors, cancellation, closing."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterator

import pytest

from sagelink.pipeline.threads import Worker
from tests.fakes import settle


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test")
    yield worker
    worker.close()


async def test_calls_run_in_one_separate_daemon_thread(worker):
    threads = {await worker.call(threading.current_thread) for _ in range(3)}
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name == "sagelink-test"


async def test_calls_run_in_the_order_they_came(worker):
    ran: list[int] = []
    results = await asyncio.gather(*(worker.call(lambda i=i: ran.append(i) or -i) for i in range(20)))
    assert ran == list(range(20))
    assert results == [-i for i in range(20)]


async def test_arguments_are_passed_on(worker):
    assert await worker.call(int, "ff", base=16) == 255


class Fatal(BaseException):
    """An error that `except Exception` does not catch."""


@pytest.mark.parametrize("error", [ValueError("no"), Fatal("no")])
async def test_errors_reach_the_caller_and_the_thread_continues(worker, error):
    def fail() -> None:
        raise error

    with pytest.raises(type(error), match="no"):
        await worker.call(fail)
    assert await worker.call(lambda: 1) == 1


async def test_stop_iteration_becomes_an_error(worker):
    with pytest.raises(RuntimeError, match="StopIteration"):
        await worker.call(next, iter(()))


async def test_the_loop_continues_while_the_thread_is_blocked(worker):
    release = threading.Event()
    stuck = asyncio.create_task(worker.call(release.wait))
    await settle()
    assert not stuck.done()
    release.set()
    assert await stuck is True


async def test_a_call_that_is_cancelled_before_its_start_never_runs(worker):
    release, ran = threading.Event(), []
    first = asyncio.create_task(worker.call(release.wait))
    second = asyncio.create_task(worker.call(ran.append, "second"))
    await settle()
    second.cancel()
    await settle()
    release.set()
    await first
    await worker.call(ran.append, "third")
    assert second.cancelled()
    assert ran == ["third"]


async def test_a_call_that_is_cancelled_while_it_runs_completes(worker):
    begun, release, ran = threading.Event(), threading.Event(), []
    stuck = asyncio.create_task(worker.call(lambda: (begun.set(), release.wait(), ran.append("done"))))
    assert await asyncio.to_thread(begun.wait, 10)
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck
    release.set()
    assert await worker.call(lambda: list(ran)) == ["done"]


def test_a_call_outlives_its_loop(worker):
    begun, release = threading.Event(), threading.Event()

    async def leave() -> None:
        stuck = asyncio.create_task(worker.call(lambda: (begun.set(), release.wait())))
        assert await asyncio.to_thread(begun.wait, 10)
        stuck.cancel()

    asyncio.run(leave())
    release.set()
    assert asyncio.run(worker.call(lambda: "alive")) == "alive"


async def test_close_runs_the_queued_calls_and_then_the_last_one():
    worker, ended, ran = Worker("closing"), threading.Event(), []
    calls = [asyncio.create_task(worker.call(ran.append, i)) for i in range(3)]
    await settle()
    worker.close(last=lambda: (ran.append("last"), ended.set()))
    await asyncio.gather(*calls)
    assert ended.wait(10)
    assert ran == [0, 1, 2, "last"]


async def test_close_does_not_wait():
    worker, release = Worker("closing"), threading.Event()
    stuck = asyncio.create_task(worker.call(release.wait))
    await settle()
    worker.close()
    assert not stuck.done()
    release.set()
    assert await stuck is True


class Frame:
    """Any object that allows weak references."""


async def test_an_argument_is_released_before_the_next_call(worker):
    frame = Frame()
    alive = weakref.ref(frame)
    await worker.call(id, frame)
    del frame
    for _ in range(1000):
        if alive() is None:
            break
        await asyncio.sleep(0.001)
    assert alive() is None
