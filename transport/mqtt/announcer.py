"""Publishes the retained states of a node and its cameras, and restores them when another publisher overwrites them.

The broker publishes the last will of a run that died only when it notices the loss, up to 1.5 keep-alives later. By
then a new run of the node may have announced itself; the will would replace the new state for servers that start later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence

from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.aiomqtt_client import BrokerClient
from sagelink.transport.mqtt.topics import Topics, decode_state, encode_state

log = logging.getLogger(__name__)

_WITHDRAW_S = 0.1  # longest wait for publishing a state when the link is closed
_AT_ONCE = 8  # states that the broker may not have confirmed yet
_PAUSE_S = 2.0  # between two repairs, which cost uplink bits
_SPREAD_S = 1.0  # nodes that are asked at the same time answer within this time
_REPEAT_S = 900.0  # brokers may lose retained states, or have none


class Announcer:
    """The states of one run."""

    def __init__(
        self,
        topics: Topics,
        node: str,
        cameras: Sequence[str],
        camera_info: Callable[[str], CameraInfo],
        session: bytes,
    ) -> None:
        """`camera_info`: what a camera announces now, by its name."""
        self._topics = topics
        self._node = node
        self._cameras = cameras
        self._camera_info = camera_info
        self._session = session
        self._wanted = asyncio.Event()  # the states must be published again
        self._spread_s = 0.0
        self._rival: str | None = None  # session of another run that announces itself as this node
        self._refusal: str | None = None

    async def announce(self, client: BrokerClient) -> None:
        """Publishes the states."""
        self._wanted.clear()
        await self._publish(client)

    @property
    def followed(self) -> tuple[str, ...]:
        """The topics that `repair` needs. To be subscribed to after `announce`, so that a retained state that differs
        is a later one."""
        node, topics = self._node, self._topics
        return (topics.state(node), topics.state(f"{node}/+"), topics.state_request(node), topics.state_request())

    async def repair(self, client: BrokerClient) -> None:
        """Publishes the states again whenever they are overwritten or a server asks, and now and then. Runs until the
        connection ends."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REPEAT_S * random.uniform(0.9, 1.1)):
                    await self._wanted.wait()
            await asyncio.sleep(random.uniform(0, self._spread_s))
            self._wanted.clear()
            self._spread_s = 0.0
            log.info("event=announced_again node=%s", self._node)
            await self._publish(client)
            await asyncio.sleep(_PAUSE_S)

    def requested(self, topic: str) -> None:
        """A server asks for the states of this node, or of all."""
        if topic == self._topics.state_request():
            self._spread_s = _SPREAD_S
        self._wanted.set()

    def observe(self, topic: str, payload: bytes) -> None:
        """Takes a state that was published for the node or for one of its cameras."""
        expected = self.states(online=True).get(topic)
        if expected is None or payload == expected:
            return
        state = decode_state(payload, topic != self._topics.state(self._node))
        if state is None or not state.online:
            self._wanted.set()
        elif state.session not in (self._rival, self._session.hex()):
            self._rival = state.session
            log.warning(
                "event=second_run node=%s: another run announces itself under this name; set another mqtt.node there",
                self._node,
            )

    async def withdraw(self, client: BrokerClient) -> None:
        """Publishes that the node and its cameras are offline. Raises MqttError."""
        for topic, state in self.states(online=False).items():
            await client.publish(topic, state, qos=0, retain=True, timeout=_WITHDRAW_S)

    async def _publish(self, client: BrokerClient) -> None:
        refusal, states = None, [*self.states(online=True).items()]
        for first in range(0, len(states), _AT_ONCE):
            some = states[first : first + _AT_ONCE]
            answers = await asyncio.gather(
                *(client.publish_confirmed(topic, state, retain=True) for topic, state in some)
            )
            refusal = next(filter(None, answers), refusal)
        if refusal != self._refusal:
            self._refusal = refusal
            if refusal is not None:
                log.warning("event=announcement_refused reason=%r: servers will refuse the cameras", refusal)

    def states(self, online: bool) -> dict[str, bytes]:
        """By topic: of every camera and then of the node, whose last will counts for all its cameras."""
        cameras = {
            self._topics.state(f"{self._node}/{camera}"): encode_state(self._session, online, self._camera_info(camera))
            for camera in self._cameras
        }
        return cameras | {self._topics.state(self._node): encode_state(self._session, online)}
