"""The connection to the broker that is open now: its client, and tasks that end it when they fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVarTuple

from sagelink.transport.mqtt.aiomqtt_client import BrokerClient

_Ts = TypeVarTuple("_Ts")


class OpenSession:
    """One session after another, with pauses when there is none."""

    def __init__(self) -> None:
        self.client: BrokerClient | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._ending = False  # a task has failed: the task group takes no further one
        self._began = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self.client is not None and not self._ending

    @contextlib.asynccontextmanager
    async def running(self, client: BrokerClient) -> AsyncIterator[None]:
        """The session is open while the body runs. Raises the errors of its tasks as a group."""
        try:
            async with asyncio.TaskGroup() as group:
                self.client, self._tasks, self._ending = client, group, False
                yield
        finally:
            self.client = self._tasks = None

    def began(self) -> None:
        """Wakes up those that wait in `opened`."""
        self._began.set()

    async def opened(self) -> None:
        """Waits until the session is open."""
        while not self.is_open:
            self._began.clear()
            await self._began.wait()

    def start(self, work: Callable[[*_Ts], Awaitable[None]], *arguments: *_Ts) -> asyncio.Task[None]:
        """Starts a task whose failure ends the session."""
        assert self._tasks is not None
        return self._tasks.create_task(self.run(work, *arguments))

    async def run(self, work: Callable[[*_Ts], Awaitable[None]], *arguments: *_Ts) -> None:
        """Work whose failure ends the session. Between the failure and its end, the session counts as not open."""
        try:
            await work(*arguments)
        except BaseException:
            self._ending = True
            raise

    async def publish(self, topic: str, payload: bytes, for_somebody: bool = False) -> str | None:
        """Publishes a message, also if the caller stops waiting for the answer. Returns None when the broker has it, or
        the reason why the broker refuses it; with `for_somebody`, a message without a subscriber counts as refused.
        Raises ConnectionError when there is no session, or when it ends first."""
        if not self.is_open:
            raise ConnectionError("the connection broke off")
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.start(self._publish, topic, payload, for_somebody, answer)
        return await answer

    async def _publish(
        self, topic: str, payload: bytes, for_somebody: bool, answer: asyncio.Future[str | None]
    ) -> None:
        assert self.client is not None
        try:
            refusal = await self.client.publish_confirmed(topic, payload, for_somebody=for_somebody)
            if not answer.done():
                answer.set_result(refusal)
        finally:
            if not answer.done():
                answer.set_exception(ConnectionError("the connection broke off before the broker confirmed a message"))
