"""The stage graph: runs sources and stages that are joined by channels, in one TaskGroup.

    graph = Graph()
    frames = graph.source(source)
    scored = graph.stage(Score(model), frames)
    graph.stage(Print(), scored)
    await graph.run()

A stage is any object with `async def process(item)`. If it is also an async context manager, the graph enters it before
its first item and leaves it after its last. With `batch`, `process` takes a list of the waiting items and returns as
many results. A result goes into the stage's output channel, or into the channel that `routes` names for its type; None
is dropped. An error of a stage does not end the graph: `rescue` turns the item and the error into a value, which is
routed like a result. Only a SagelinkError (such as a full disk) ends the run. The graph ends when its sources have
ended and all items have been processed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, runtime_checkable

from sagelink.pipeline.channel import Channel, ChannelClosed, Policy
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.tasks import first_error

log = logging.getLogger(__name__)


class Stage(Protocol):
    async def process(self, item: Any, /) -> object:
        """Takes one item, returns one result or None."""
        ...


@runtime_checkable
class Source(Protocol):
    def __aiter__(self) -> AsyncIterator[Any]: ...


Rescue = Callable[[object, Exception | None], object]
Routes = Mapping[type[Any], Channel[Any]]


class Chain:
    """Several stages as one: an item passes all of them before the next item enters the first.

    A result of one of the `exits` types, or None, skips the remaining stages.
    """

    def __init__(self, stages: Sequence[Stage], exits: tuple[type, ...] = ()) -> None:
        self._stages = stages
        self._exits = exits
        self._entered = AsyncExitStack()

    async def __aenter__(self) -> Chain:
        async with AsyncExitStack() as stack:  # leaves the entered stages if one fails to enter
            for stage in self._stages:
                await _enter(stack, stage)
            self._entered = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._entered.aclose()

    async def process(self, item: object) -> object:
        for stage in self._stages:
            item = await stage.process(item)
            if item is None or isinstance(item, self._exits):
                break
        return item


async def _enter(stack: AsyncExitStack, work: object) -> None:
    if isinstance(work, contextlib.AbstractAsyncContextManager):
        await stack.enter_async_context(work)


class _Node:
    """One source or stage with its channels."""

    def __init__(
        self,
        name: str,
        work: Source | Stage,
        inbox: Channel[Any] | None,
        outbox: Channel[Any],
        routes: Routes,
        workers: int,
        batch: int | None,
    ) -> None:
        self.name = name
        self.work = work
        self.inbox = inbox
        self.outbox = outbox
        self.routes = routes
        self.workers = workers
        self.batch = batch
        self.failures = 0
        self.in_hand: dict[int, list[object]] = {}  # by worker: items that have not been passed on yet

    def outputs(self) -> set[Channel[Any]]:
        return {self.outbox, *self.routes.values()}

    def output_for(self, item: object) -> Channel[Any]:
        for kind, channel in self.routes.items():
            if isinstance(item, kind):
                return channel
        return self.outbox


class Graph:
    """Built with `source` and `stage`, then run once with `run`."""

    def __init__(self, rescue: Rescue | None = None, grace_s: float = 0.8) -> None:
        """`rescue`: see the module; the error is None for an item that a channel displaced. `grace_s`: time for the
        remaining items after `stop`."""
        self._nodes: list[_Node] = []
        self._producers: dict[Channel[Any], int] = {}
        self._rescue = rescue or (lambda item, error: None)
        self._grace_s = grace_s
        self._tasks: dict[asyncio.Task[None], _Node] = {}
        self._consumed: set[Channel[Any]] = set()
        self._source_errors: list[Exception] = []
        self.stopping = False

    def channel(
        self, name: str, policy: Policy = "wait", capacity: int = 4, key: Callable[[Any], Hashable] = lambda item: None
    ) -> Channel[Any]:
        """Makes a channel for several nodes to feed; it closes when the last of them has ended."""
        return Channel(name, policy, capacity, key)

    def source(
        self,
        source: Source,
        *,
        name: str = "",
        policy: Policy = "wait",
        capacity: int = 4,
        routes: Routes | None = None,
    ) -> Channel[Any]:
        """Adds a source (any async iterable); returns its output channel."""
        return self._add(source, None, name, policy, capacity, routes, 1, None)

    def stage(
        self,
        stage: Stage,
        inbox: Channel[Any],
        *,
        name: str = "",
        policy: Policy = "wait",
        capacity: int = 4,
        routes: Routes | None = None,
        workers: int = 1,
        batch: int | None = None,
    ) -> Channel[Any]:
        """Adds a stage that reads `inbox`; returns its output channel. `workers` items are processed at the same time.

        `batch`: the stage takes a list of 1 to `batch` items, and returns a list of as many results.
        """
        return self._add(stage, inbox, name, policy, capacity, routes, workers, batch)

    def _add(
        self,
        work: Source | Stage,
        inbox: Channel[Any] | None,
        name: str,
        policy: Policy,
        capacity: int,
        routes: Routes | None,
        workers: int,
        batch: int | None,
    ) -> Channel[Any]:
        name = name or type(work).__name__.lower()
        node = _Node(name, work, inbox, Channel(name, policy, capacity), routes or {}, workers, batch)
        self._nodes.append(node)
        if inbox is not None:
            self._consumed.add(inbox)
        for output in node.outputs():
            self._producers[output] = self._producers.get(output, 0) + 1
        return node.outbox

    @property
    def channels(self) -> list[Channel[Any]]:
        """The channels that a stage reads."""
        return [channel for channel in self._producers if channel in self._consumed]

    @property
    def failures(self) -> dict[str, int]:
        """Number of items on which a stage raised an error, by stage; only stages with errors."""
        return {node.name: node.failures for node in self._nodes if node.failures}

    async def run(self) -> None:
        """Runs until all sources have ended and all items have been processed. Raises the error of a source, or of a
        stage on entering or leaving it; the remaining items are then in `leftovers`. After `stop`, returns at once."""
        if self.stopping:
            return
        try:
            async with asyncio.TaskGroup() as group:
                for node in self._nodes:
                    self._tasks[group.create_task(self._run_node(node), name=node.name)] = node
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        if self._source_errors:
            raise self._source_errors[0]

    def stop(self) -> None:
        """Ends the sources; the remaining items are processed for up to `grace_s` seconds, then cancelled."""
        if self.stopping:
            return
        self.stopping = True
        for task, node in self._tasks.items():
            if node.inbox is None:
                task.cancel()
        asyncio.get_running_loop().call_later(self._grace_s, self.abort)

    def abort(self) -> None:
        """Cancels all nodes now; the remaining items are in `leftovers`."""
        self.stopping = True
        for task in self._tasks:
            task.cancel()

    def leftovers(self) -> list[object]:
        """After `run`: the items that were not processed to the end."""
        inside = [item for node in self._nodes for items in node.in_hand.values() for item in items]
        return inside + [item for channel in self._consumed for item in channel.drain()]

    async def _run_node(self, node: _Node) -> None:
        try:
            async with AsyncExitStack() as stack:
                await _enter(stack, node.work)
                if node.inbox is None:
                    await self._pump(node)
                elif node.workers == 1:
                    await self._work(node, 0)
                else:
                    async with asyncio.TaskGroup() as group:
                        for worker in range(node.workers):
                            group.create_task(self._work(node, worker))
        finally:
            for output in node.outputs():
                self._producers[output] -= 1
                if self._producers[output] == 0:
                    output.close()

    async def _pump(self, node: _Node) -> None:
        """Runs a source: passes its items on. If it fails, its earlier items are still processed."""
        assert isinstance(node.work, Source)
        items = aiter(node.work)
        try:
            async for item in items:
                node.in_hand[0] = [item]
                await self._pass_on(node, 0)
        except Exception as error:
            self._source_errors.append(error)
        finally:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    async def _work(self, node: _Node, worker: int) -> None:
        """Runs a stage: one item, or one batch, after the other."""
        assert node.inbox is not None
        while True:
            try:
                items = await node.inbox.get_several(node.batch or 1)
            except ChannelClosed:
                return
            node.in_hand[worker] = items
            node.in_hand[worker] = [result for result in await self._process(node, items) if result is not None]
            await self._pass_on(node, worker)

    async def _process(self, node: _Node, items: list[Any]) -> Sequence[object]:
        """Returns one result per item. If a batch fails, each item is tried alone, so that only the faulty ones are
        rescued."""
        stage: Stage = node.work  # type: ignore[assignment]  # a node with an inbox holds a stage
        try:
            if node.batch is None:
                return [await stage.process(items[0])]
            return await stage.process(items)  # type: ignore[return-value]  # see `stage`
        except SagelinkError:
            raise
        except Exception as error:
            if len(items) > 1:
                return [result for item in items for result in await self._process(node, [item])]
            node.failures += 1
            log.debug("stage=%s event=failed", node.name, exc_info=True)
            if node.failures == 1:
                log.warning("stage=%s event=failed error=%r", node.name, error)
            return [self._rescue(items[0], error)]

    async def _pass_on(self, node: _Node, worker: int) -> None:
        """Puts the worker's results into their channels. A displaced item is rescued, and its value routed in turn."""
        items = node.in_hand[worker]
        while items:
            output = node.output_for(items[0])
            displaced = await output.put(items[0]) if output in self._consumed else None
            rescued = None if displaced is None else self._rescue(displaced, None)
            if rescued is None or node.output_for(rescued) is output:
                del items[0]
            else:
                items[0] = rescued
        del node.in_hand[worker]
