"""Takes an operator's commands to the cameras of a node from MQTT, and publishes what came of them.

A command without the right MAC is ignored, and the first of each kind is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.message_auth import MessageAuth
from sagelink.transport.mqtt.open_session import OpenSession
from sagelink.transport.mqtt.topics import Topics
from sagelink.transport.operator_commands import Action, CommandReceiver, decode_command, encode_outcome

log = logging.getLogger(__name__)

OnCommand = Callable[[str, Action, bytes, str], str]  # takes the camera, and what CommandReceiver gives


class CommandIntake:
    """The commands to the cameras of one run."""

    def __init__(
        self,
        session: OpenSession,
        topics: Topics,
        node: str,
        cameras: Sequence[str],
        on_command: OnCommand,
        auth: MessageAuth,
        run_id: bytes,
    ) -> None:
        """`on_command` carries a command out: see CommandReceiver. `run_id`: the session that the node announces."""
        self._session = session
        self._topics = topics
        self._auth = auth
        self._run_id = run_id
        self._receivers = {f"{node}/{camera}": CommandReceiver(partial(on_command, camera)) for camera in cameras}
        self._logged: set[str] = set()  # reasons for which commands were ignored

    def take(self, address: str, payload: bytes) -> None:
        """Carries out a command to the camera `address`, if it has the right MAC."""
        receiver = self._receivers.get(address)
        if receiver is None or not self._session.is_open:
            return
        try:
            outcome = receiver.take(decode_command(self._auth.open(payload, address, self._run_id)))
        except MalformedMessage as error:
            if str(error) not in self._logged:
                self._logged.add(str(error))
                log.warning("event=command_ignored camera=%s reason=%r", address, str(error))
            return
        if outcome is not None:
            sealed = self._auth.seal(encode_outcome(outcome), address, self._run_id)
            self._session.start(self._publish, self._topics.outcome(address), sealed)

    async def _publish(self, topic: str, payload: bytes) -> None:
        assert self._session.client is not None
        await self._session.client.publish_confirmed(topic, payload)
