"""Sends an operator's command about a head to one camera, and returns the camera's answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.tasks import background
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.address import Broker
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.connection import BrokerConnection
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.operator_commands import (
    Action,
    CommandOutcome,
    OperatorCommand,
    decode_outcome,
    encode_command,
    push_commands,
)

_ONLINE_S = 3.0  # in which the retained states of an online camera arrive
_OUTCOME_S = 60.0  # longest wait for the answer, after the last part: the uplink may be busy


async def command_camera(
    broker: Broker,
    topics: Topics,
    address: str,
    auth: MessageAuth,
    action: Action,
    content: bytes = b"",
    fingerprint: bytes = b"",
    head: str = "",
    show_progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Carries out one command; a push has the `content` of a head file and its fingerprint. `head`: name of the further
    head that it is about; empty: the first. `show_progress` gets the parts that are sent, and all. Returns the camera's
    answer.

    Raises UsageError if the camera is not online or refuses; SagelinkError if the broker or the camera does not answer.
    """
    number = time.time_ns()
    commands: Sequence[OperatorCommand] = (
        [*push_commands(number, fingerprint, content, head)]
        if action is Action.PUSH
        else [OperatorCommand(number, action, head=head)]
    )
    operator = _Operator(broker, topics, address, auth, commands, show_progress)
    async with background(operator.connection.run()):
        if (trouble := await operator.connection.first_attempt()) is not None:
            raise SagelinkError(trouble)
        outcome = await operator.outcome
    if not outcome.done:
        raise UsageError(f"{address} refuses: {outcome.text}")
    return outcome.text


class _Operator:
    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        address: str,
        auth: MessageAuth,
        commands: Sequence[OperatorCommand],
        show_progress: Callable[[int, int], None],
    ) -> None:
        self._topics = topics
        self._address = address
        self._auth = auth
        self._commands = commands
        self._show_progress = show_progress
        self._registry = CameraRegistry()
        self._online = asyncio.Event()
        self.outcome: asyncio.Future[CommandOutcome] = asyncio.get_running_loop().create_future()
        self.connection = BrokerConnection(
            broker, self._run_session, identifier=f"sagelink-operator-{secrets.token_hex(4)}", on_message=self._receive
        )

    async def _run_session(self, client: BrokerClient) -> None:
        node = self._address.partition("/")[0]
        for address in (node, self._address):
            await client.must_subscribe(self._topics.state(address), 1)
        await client.must_subscribe(self._topics.outcome(self._address), 1)
        self.connection.established()
        try:
            await self._send(client)
        except (SagelinkError, TimeoutError) as error:
            if not self.outcome.done():
                self.outcome.set_exception(error if isinstance(error, SagelinkError) else self._silent())
        await client.until_disconnected()

    def _silent(self) -> SagelinkError:
        return SagelinkError(
            f"{self._address} does not answer: it has another key in mqtt.mac_key_file, or the broker does not let it "
            f"read {self._topics.command(self._address)}"
        )

    async def _send(self, client: BrokerClient) -> None:
        try:
            async with asyncio.timeout(_ONLINE_S):
                await self._online.wait()
        except TimeoutError:
            raise UsageError(
                f"{self._address} is not online at this broker; accepted: NODE/CAMERA of a live run, as in its topics"
            ) from None
        for place, command in enumerate(self._commands):
            session = self._registry.session_of(self._address)
            if session is None:
                raise SagelinkError(f"{self._address} went offline")
            sealed = self._auth.seal(encode_command(command), self._address, bytes.fromhex(session))
            refusal = await client.publish_confirmed(self._topics.command(self._address), sealed)
            if refusal is not None:
                raise SagelinkError(refusal)
            self._show_progress(place + 1, len(self._commands))
        async with asyncio.timeout(_OUTCOME_S):
            await asyncio.shield(self.outcome)

    def _receive(self, topic: str, payload: bytes, retained: bool) -> None:
        if topic.endswith("/state"):
            self._registry.update(self._topics.address_of(topic), payload)
            if self._registry.session_of(self._address) is not None:
                self._online.set()
            return
        session = self._registry.session_of(self._address)
        if session is None or self.outcome.done():
            return
        try:
            outcome = decode_outcome(self._auth.open(payload, self._address, bytes.fromhex(session)))
        except MalformedMessage:
            return  # not from the camera
        if outcome.number == self._commands[0].number:
            self.outcome.set_result(outcome)
