"""The stage graph: order, routes, rescue, errors, and every item is processed or left over at the end."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.graph import Chain, Graph
from tests.fakes import settle

DOCS = Path(__file__).parents[2] / "docs" / "graph.md"


async def numbers(count: int | None = None, given: list[int] | None = None) -> AsyncIterator[int]:
    """0, 1, 2 ...; without end if there is no count. Appends what it yields to `given`."""
    item = 0
    while item != count:
        if given is not None:
            given.append(item)
        yield item
        item += 1
        await asyncio.sleep(0)


class Collect:
    """A last stage that collects its items."""

    def __init__(self) -> None:
        self.items: list[object] = []

    async def process(self, item: object) -> None:
        self.items.append(item)


class Apply:
    """A stage from a plain function."""

    def __init__(self, function: Callable[[int], object]) -> None:
        self._function = function

    async def process(self, item: int) -> object:
        return self._function(item)


class Held:
    """A stage that holds items until `gate` is set, and counts how many it held at the same time."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.inside = self.max_inside = 0

    async def process(self, item: object) -> object:
        self.inside += 1
        self.max_inside = max(self.max_inside, self.inside)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1
        return item


class Scoped:
    """A stage, or a source of three items, that logs its events."""

    def __init__(self, name: str, log: list[str], fail_on: str = "") -> None:
        self._name = name
        self._log = log
        self._fail_on = fail_on

    async def __aenter__(self) -> Scoped:
        self._note("enter")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._note("exit")

    async def process(self, item: object) -> object:
        self._note(f"item {item}")
        return item

    async def __aiter__(self) -> AsyncIterator[int]:
        for item in range(3):
            self._note(f"give {item}")
            yield item

    def _note(self, event: str) -> None:
        self._log.append(f"{self._name} {event}")
        if event == self._fail_on:
            raise OSError(f"{self._name} failed on {event}")


class Rescued(tuple):
    """An item and its error, as `rescue_all` returns them."""

    __slots__ = ()


def rescue_all(item: object, error: Exception | None) -> Rescued:
    return Rescued((item, error))


# Normal operation


async def test_every_item_is_processed_in_order():
    graph, collected = Graph(), Collect()
    squares = graph.stage(Apply(lambda item: item**2), graph.source(numbers(20)))
    graph.stage(collected, squares)
    await graph.run()
    assert collected.items == [item**2 for item in range(20)]
    assert graph.leftovers() == []
    assert graph.failures == {}


async def test_an_empty_source_ends_the_graph():
    graph, collected = Graph(), Collect()
    graph.stage(collected, graph.source(numbers(0)))
    await graph.run()
    assert collected.items == []


async def test_a_result_of_none_is_dropped():
    graph, collected = Graph(), Collect()
    odd = graph.stage(Apply(lambda item: item if item % 2 else None), graph.source(numbers(6)))
    graph.stage(collected, odd)
    await graph.run()
    assert collected.items == [1, 3, 5]


async def test_zero_is_an_item():
    graph, collected = Graph(), Collect()
    graph.stage(collected, graph.stage(Apply(lambda item: 0), graph.source(numbers(2))))
    await graph.run()
    assert collected.items == [0, 0]


async def test_wait_loses_no_item_with_a_slow_stage():
    class Slow(Collect):
        async def process(self, item: object) -> None:
            await settle(7)
            await super().process(item)

    graph, collected = Graph(rescue=rescue_all), Slow()
    frames = graph.source(numbers(50), capacity=1)
    graph.stage(collected, frames)
    await graph.run()
    assert collected.items == list(range(50))
    assert (frames.accepted, frames.delivered, frames.displaced) == (50, 50, 0)


@pytest.mark.parametrize(("policy", "processed"), [("latest", [0, 9]), ("drop_oldest", [0, 7, 8, 9])])
async def test_displaced_items_are_rescued(policy, processed):
    graph, held, collected, rescued = Graph(rescue=rescue_all), Held(), Collect(), Collect()
    rescues = graph.channel("rescues")
    frames = graph.source(numbers(10), policy=policy, capacity=3, routes={Rescued: rescues})
    graph.stage(collected, graph.stage(held, frames))
    graph.stage(rescued, rescues)
    run = asyncio.create_task(graph.run())
    await settle(200)  # the source has ended, the first item is still held
    held.gate.set()
    await run
    assert collected.items == processed
    assert rescued.items == [(item, None) for item in range(10) if item not in processed]
    assert frames.displaced == len(rescued.items)
    assert graph.failures == {}


async def test_displaced_items_without_a_route_are_dropped():
    graph, held, collected = Graph(rescue=lambda item, error: item), Held(), Collect()
    graph.stage(collected, graph.stage(held, graph.source(numbers(10), policy="latest")))
    run = asyncio.create_task(graph.run())
    await settle(200)
    held.gate.set()
    await run
    assert collected.items == [0, 9]


async def test_workers_process_at_the_same_time():
    graph, held, collected = Graph(), Held(), Collect()
    graph.stage(collected, graph.stage(held, graph.source(numbers(10)), workers=3))
    run = asyncio.create_task(graph.run())
    await settle(100)
    assert held.inside == 3
    held.gate.set()
    await run
    assert held.max_inside == 3
    assert sorted(collected.items) == list(range(10))


async def test_one_worker_processes_one_at_a_time():
    graph, held = Graph(), Held()
    graph.stage(held, graph.source(numbers(5)))
    run = asyncio.create_task(graph.run())
    await settle(100)
    assert held.inside == 1
    held.gate.set()
    await run
    assert held.max_inside == 1


# Routes


async def test_routes_select_by_type_and_the_first_match_counts():
    graph = Graph()
    texts, plain, other = Collect(), Collect(), Collect()
    text, whole = graph.channel("text"), graph.channel("whole")
    results = {0: "zero", 1: 1, 2: True, 3: 2.5}
    rest = graph.stage(Apply(results.__getitem__), graph.source(numbers(4)), routes={str: text, int: whole, bool: text})
    for stage, channel in ((texts, text), (plain, whole), (other, rest)):
        graph.stage(stage, channel)
    await graph.run()
    assert (texts.items, plain.items, other.items) == (["zero"], [1, True], [2.5])


async def test_a_channel_with_several_producers_closes_after_the_last():
    graph, collected = Graph(), Collect()
    both = graph.channel("both")
    graph.source(numbers(2), routes={int: both})
    graph.source(numbers(9), routes={int: both})
    graph.stage(collected, both)
    await graph.run()
    assert sorted(collected.items) == sorted([*range(2), *range(9)])
    assert both.closed


async def test_items_for_a_channel_without_reader_are_dropped():
    graph = Graph()
    graph.stage(Apply(str), graph.source(numbers(20), capacity=1), capacity=1)
    await graph.run()
    assert graph.leftovers() == []


# Chain


async def test_a_chain_processes_one_item_in_all_its_stages():
    log: list[str] = []
    graph = Graph()
    graph.stage(Chain([Scoped("a", log), Scoped("b", log)]), graph.source(numbers(2)))
    await graph.run()
    assert log == ["a enter", "b enter", "a item 0", "b item 0", "a item 1", "b item 1", "b exit", "a exit"]


async def test_a_chain_ends_early_with_an_exit_or_none():
    graph, collected, last = Graph(), Collect(), []
    results = {0: "kept", 1: None, 2: 2}
    chain = Chain([Apply(results.__getitem__), Apply(lambda item: last.append(item) or -item)], exits=(str,))
    graph.stage(collected, graph.stage(chain, graph.source(numbers(3))))
    await graph.run()
    assert collected.items == ["kept", -2]
    assert last == [2]


async def test_a_chain_leaves_its_entered_stages_when_a_later_one_fails_to_enter():
    log: list[str] = []
    graph = Graph()
    graph.stage(Chain([Scoped("a", log), Scoped("b", log, fail_on="enter")]), graph.source(numbers(2)))
    with pytest.raises(OSError, match="b failed on enter"):
        await graph.run()
    assert log == ["a enter", "b enter", "a exit"]


# Errors


def fail_on_odd(item: int) -> int:
    if item % 2:
        raise ValueError(f"odd: {item}")
    return item


async def test_an_item_on_which_a_stage_fails_is_rescued_and_the_stage_continues():
    graph, collected, rescued = Graph(rescue=rescue_all), Collect(), Collect()
    rescues = graph.channel("rescues")
    graph.stage(
        collected,
        graph.stage(Apply(fail_on_odd), graph.source(numbers(5)), name="even", routes={Rescued: rescues}),
    )
    graph.stage(rescued, rescues)
    await graph.run()
    assert collected.items == [0, 2, 4]
    assert [(item, str(error)) for item, error in rescued.items] == [(1, "odd: 1"), (3, "odd: 3")]
    assert graph.failures == {"even": 2}
    assert graph.leftovers() == []


async def test_without_rescue_a_failed_item_is_dropped(caplog):
    graph, collected = Graph(), Collect()
    graph.stage(collected, graph.stage(Apply(fail_on_odd), graph.source(numbers(5)), name="even"))
    await graph.run()
    assert collected.items == [0, 2, 4]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["stage=even event=failed error=ValueError('odd: 1')"]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_sagelink_error_ends_the_run(workers):
    def full(item: int) -> None:
        if item == 2:
            raise SagelinkError("disk full")

    given: list[int] = []
    graph = Graph(rescue=rescue_all)
    graph.stage(Apply(full), graph.source(numbers(None, given)), workers=workers)
    with pytest.raises(SagelinkError, match="disk full"):
        await graph.run()
    assert 2 in graph.leftovers()
    assert graph.failures == {}


async def test_an_error_of_rescue_ends_the_run():
    def rescue(item: object, error: Exception | None) -> object:
        raise RuntimeError("cannot rescue") from error

    graph = Graph(rescue)
    graph.stage(Apply(fail_on_odd), graph.source(numbers(None)))
    with pytest.raises(RuntimeError, match="cannot rescue"):
        await graph.run()
    assert 1 in graph.leftovers()


async def test_earlier_items_of_a_failed_source_are_processed():
    async def broken() -> AsyncIterator[int]:
        for item in range(7):
            yield item
        raise OSError("camera gone")

    graph, collected = Graph(rescue=rescue_all), Collect()
    graph.stage(collected, graph.stage(Apply(str), graph.source(broken(), capacity=2), capacity=1))
    with pytest.raises(OSError, match="camera gone"):
        await graph.run()
    assert collected.items == [str(item) for item in range(7)]
    assert graph.leftovers() == []


async def test_one_failed_source_does_not_end_the_other():
    async def broken() -> AsyncIterator[int]:
        raise OSError("camera gone")
        yield

    graph, collected = Graph(), Collect()
    both = graph.channel("both")
    graph.source(broken(), routes={int: both})
    graph.source(numbers(5), routes={int: both})
    graph.stage(collected, both)
    with pytest.raises(OSError, match="camera gone"):
        await graph.run()
    assert collected.items == list(range(5))


# Context managers


async def test_a_stage_is_entered_before_its_first_item_and_left_after_its_last():
    log: list[str] = []
    graph = Graph()
    graph.stage(Scoped("stage", log), graph.source(Scoped("source", log)))
    await graph.run()
    stage = [event for event in log if event.startswith("stage")]
    source = [event for event in log if event.startswith("source")]
    assert stage == ["stage enter", "stage item 0", "stage item 1", "stage item 2", "stage exit"]
    assert source == ["source enter", "source give 0", "source give 1", "source give 2", "source exit"]
    assert log[-1] == "stage exit"


async def test_workers_share_one_scope():
    log: list[str] = []
    graph = Graph()
    graph.stage(Scoped("stage", log), graph.source(numbers(4)), workers=3)
    await graph.run()
    assert (log[0], log[-1]) == ("stage enter", "stage exit")
    assert Counter(log)["stage enter"] == Counter(log)["stage exit"] == 1


@pytest.mark.parametrize("event", ["enter", "exit"])
async def test_a_stage_that_cannot_start_or_end_ends_the_run(event):
    log: list[str] = []
    graph = Graph(rescue=rescue_all)
    graph.stage(Scoped("stage", log, fail_on=event), graph.source(numbers(3)))
    with pytest.raises(OSError, match=f"stage failed on {event}"):
        await graph.run()


async def test_abort_leaves_entered_stages():
    log: list[str] = []
    graph = Graph()
    graph.stage(Scoped("stage", log), graph.source(numbers(None)))
    run = asyncio.create_task(graph.run())
    await settle()
    graph.abort()
    await run
    assert (log[0], log[-1]) == ("stage enter", "stage exit")


async def test_an_async_generator_is_closed_when_the_graph_stops():
    closed = []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    graph = Graph(grace_s=0.001)
    graph.stage(Held(), graph.source(source()))
    run = asyncio.create_task(graph.run())
    await settle()
    graph.stop()
    await run
    assert closed == [True]


# Ending early


async def test_stop_processes_the_remaining_items():
    given: list[int] = []
    graph, held, collected = Graph(grace_s=60), Held(), Collect()
    graph.stage(collected, graph.stage(held, graph.source(numbers(None, given))))
    run = asyncio.create_task(graph.run())
    await settle(50)
    graph.stop()
    assert graph.stopping
    held.gate.set()
    await run
    assert sorted([*collected.items, *graph.leftovers()]) == given
    assert collected.items == given[: len(collected.items)]
    assert len(collected.items) >= 5  # the held item and the four waiting ones


async def test_stop_aborts_after_the_grace_time():
    given: list[int] = []
    graph, held = Graph(grace_s=0.002), Held()
    graph.stage(held, graph.source(numbers(None, given)))
    run = asyncio.create_task(graph.run())
    await settle(50)
    graph.stop()
    graph.stop()
    await run
    assert sorted(graph.leftovers()) == given


async def test_stop_before_the_first_item():
    given: list[int] = []
    graph, collected = Graph(grace_s=0.002), Collect()
    graph.stage(collected, graph.source(numbers(None, given)))
    run = asyncio.create_task(graph.run())
    await asyncio.sleep(0)
    graph.stop()
    await run
    assert sorted([*collected.items, *graph.leftovers()]) == given


async def test_cancelling_the_run_aborts_it_and_is_not_swallowed():
    given: list[int] = []
    graph = Graph()
    graph.stage(Held(), graph.source(numbers(None, given)))
    run = asyncio.create_task(graph.run())
    await settle(50)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert sorted(graph.leftovers()) == given


@given(
    rounds=st.integers(1, 60),
    policy=st.sampled_from(["wait", "drop_oldest", "latest"]),
    middle=st.sampled_from(["wait", "drop_oldest", "latest"]),
    workers=st.integers(1, 3),
    work=st.integers(0, 9),
    ending=st.sampled_from(["abort", "stop", "stop with time"]),
)
async def test_every_item_is_processed_or_left_over_exactly_once(rounds, policy, middle, workers, work, ending):
    class Slow(Collect):
        """Waits before it collects."""

        async def process(self, item: object) -> None:
            await settle(work)
            await super().process(item)

    class Busy:
        async def process(self, item: int) -> int:
            await settle(work // 2)
            return fail_on_odd(item) if item % 3 == 0 else item

    given: list[int] = []
    graph = Graph(rescue=rescue_all, grace_s=0.05 if ending == "stop with time" else 0.0)
    collected, rescued, rescues = Slow(), Slow(), graph.channel("rescues", capacity=1)
    routes = {Rescued: rescues}
    frames = graph.source(numbers(None, given), policy=policy, capacity=2, routes=routes)
    done = graph.stage(Busy(), frames, policy=middle, capacity=2, workers=workers, routes=routes)
    graph.stage(collected, done)
    graph.stage(rescued, rescues)
    run = asyncio.create_task(graph.run())
    await settle(rounds)
    if ending == "abort":
        graph.abort()
    else:
        graph.stop()
    await run
    ended = [*collected.items, *rescued.items, *graph.leftovers()]
    assert sorted(item[0] if isinstance(item, Rescued) else item for item in ended) == given


async def test_several_workers_may_displace_items_at_the_same_time():
    """Two workers, each with a rescued item that waits for room in a full channel."""
    graph, held_results, held_rescued = Graph(rescue=rescue_all), Held(), Held()
    collected, rescued, rescues = Collect(), Collect(), graph.channel("rescues", capacity=1)
    done = graph.stage(
        Apply(lambda item: item),
        graph.source(numbers(12)),
        policy="latest",
        workers=3,
        routes={Rescued: rescues},
    )
    graph.stage(collected, graph.stage(held_results, done))
    graph.stage(rescued, graph.stage(held_rescued, rescues))
    run = asyncio.create_task(graph.run())
    await settle(200)
    held_rescued.gate.set()
    held_results.gate.set()
    await run
    assert sorted([*collected.items, *(item for item, _ in rescued.items)]) == list(range(12))


# The documentation


def test_the_example_in_the_docs_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(example.splitlines()) < 20
    exec(compile(example, str(DOCS), "exec"), {"__name__": "example"})  # noqa: S102  # our own page
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["frame 0", "frame 1", "frame 2"]
    assert all(0 < int(line.split()[-1]) < 255 for line in lines)


class Batches:
    """A batch stage that doubles items, and fails on 3."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def process(self, items: list[int]) -> list[object]:
        self.batches.append(items)
        if 3 in items:
            raise RuntimeError("three")
        await settle()
        return [None if item == 5 else 2 * item for item in items]


async def test_a_batch_holds_the_waiting_items_and_a_failed_batch_is_tried_item_by_item():
    batches, collected = Batches(), Collect()
    graph = Graph(rescue=lambda item, error: f"rescued {item}")
    doubled = graph.stage(batches, graph.source(numbers(8), capacity=8), batch=4)
    graph.stage(collected, doubled)
    await graph.run()
    assert collected.items == [0, 2, 4, "rescued 3", 8, 12, 14]
    assert max(map(len, batches.batches)) > 1
    assert all(len(items) <= 4 for items in batches.batches)
    assert graph.failures == {"batches": 1}
    assert graph.leftovers() == []


async def test_all_items_of_a_batch_are_left_over_after_an_abort():
    class Stuck:
        async def process(self, items: list[int]) -> list[int]:
            await asyncio.Event().wait()
            return items

    graph = Graph(grace_s=0.01)
    graph.stage(Stuck(), graph.source(numbers(3), capacity=3), batch=8)
    running = asyncio.create_task(graph.run())
    await settle()
    graph.stop()
    await asyncio.wait([running])
    assert sorted(graph.leftovers()) == [0, 1, 2]
