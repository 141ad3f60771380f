"""Decides whether a server is in its group, which shares the frames: joins it, leaves it, and reports its presence.

The servers of one group share the frames through a shared subscription (NATS: a queue group). Where the broker has
none, one server serves alone and the others stand by. A server whose model fits none of the online cameras leaves the
group until one fits: else it would receive and refuse a share of all frames.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.server_claim import ServerClaim
from sagelink.transport.mqtt.server_client import ServerClient
from sagelink.transport.mqtt.sharing_probe import SharingProbe
from sagelink.transport.mqtt.topics import Topics

log = logging.getLogger(__name__)

_MEMBERSHIP_S = 0.2  # between two decisions whether to be in the group
_CLAIM_STEP_S = 0.5  # between two looks at the claim
_PRESENCE_S = 60.0  # between two reports of the presence, where nothing retains it
_NO_SHARING = "the broker has no shared subscriptions"
_ONLINE = b"online"  # presence; edges send nothing while every server that they know has withdrawn it
_WITHDRAW_S = 0.02  # longest wait for that when the link is closed

Misfit = Callable[[CameraInfo], str | None]  # why the server's model cannot serve a camera


class GroupMembership:
    """The membership of one server, in one connection after another."""

    def __init__(self, topics: Topics, group: str, server: str, online: Mapping[str, CameraInfo]) -> None:
        """`group`: empty: a plain subscription, this server serves alone. `server`: identifies it. `online`: the
        cameras that are online, by address."""
        self._topics = topics
        self._group = group
        self._online = online
        self.shared = False  # the frames are shared through the broker; decided for each connection
        self._frames = topics.evidence("+/+")  # the subscription
        self._claim = ServerClaim(server)
        self._claim_topic = topics.claim(group)
        self._sharing_probe = SharingProbe(topics, server)
        self.presence = topics.presence(server)  # the topic
        self._changed = asyncio.Event()
        self._misfit: Misfit = lambda camera_info: None
        self.idle: str | None = None  # why the server is not in the group

    def serve_fitting(self, misfit: Misfit) -> None:
        """From now on the server is in the group only while a camera fits, or none is online."""
        self._misfit = misfit
        self._changed.set()

    def cameras_changed(self) -> None:
        """To be called when a camera has come online, gone offline or announced something else."""
        self._changed.set()

    async def choose_subscription(self, client: ServerClient) -> None:
        """Decides whether the frames are shared through the broker."""
        evidence = self._topics.evidence("+/+")
        self.shared = bool(self._group) and await self._sharing_probe.broker_shares(client, self._group)
        self._frames = f"$share/{self._group}/{evidence}" if self.shared else evidence
        if self._group and not self.shared:
            log.warning("event=no_sharing reason=%r: one server of the group serves, others stand by", _NO_SHARING)

    async def join(self, client: ServerClient, tasks: asyncio.TaskGroup) -> None:
        """Joins the group if the server should be in it. `tasks`: joins and leaves it from then on."""
        if not self.shared:
            await self._follow_claim(client, tasks)
        in_group = await self._update(client, in_group=False)
        tasks.create_task(self._follow_cameras(client, in_group))
        if not client.retains:
            tasks.create_task(self._repeat_presence(client))

    async def withdraw(self, client: ServerClient) -> None:
        """Withdraws the presence when the link is closed. Raises MqttError."""
        await client.publish(self.presence, b"", qos=0, retain=True, timeout=_WITHDRAW_S)

    def receive(self, topic: str, payload: bytes, retained: bool) -> bool:
        """Takes a message about the group; False if it is about something else."""
        if topic == self._claim_topic:
            held = self._claim.held
            self._claim.observe(payload, time.monotonic(), retained)
            if held != self._claim.held:
                self._changed.set()
        elif topic.endswith("/presence"):
            server = self._topics.address_of(topic).rpartition("/")[2]
            self._claim.observe_presence(server, bool(payload), time.monotonic())
        else:
            return self._sharing_probe.observe(topic)
        return True

    async def _follow_claim(self, client: ServerClient, group: asyncio.TaskGroup) -> None:
        """Takes the group's claim if it is free, and keeps it in a task of `group`."""
        self._claim.connected(time.monotonic())
        for topic in (self._claim_topic, self._topics.presence("+")):
            await client.must_subscribe(topic, qos=0)

        async def keep() -> None:
            while True:
                held = self._claim.held
                if self._claim.is_due(time.monotonic()):
                    await client.publish(self._claim_topic, self._claim.encode(), qos=0, retain=True)
                if held != self._claim.held:
                    self._changed.set()
                await asyncio.sleep(_CLAIM_STEP_S)

        group.create_task(keep())
        while not self._claim.settled(time.monotonic()):  # noqa: ASYNC110
            await asyncio.sleep(_CLAIM_STEP_S)

    async def _repeat_presence(self, client: ServerClient) -> None:
        """For edges that have missed it, because nothing retains it."""
        while True:
            await asyncio.sleep(_PRESENCE_S)
            if self.idle is None:
                await client.publish(self.presence, _ONLINE, qos=0)

    async def _follow_cameras(self, client: ServerClient, in_group: bool) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            in_group = await self._update(client, in_group)
            await asyncio.sleep(_MEMBERSHIP_S)

    async def _update(self, client: ServerClient, in_group: bool) -> bool:
        """Joins or leaves the group. Returns whether the server is in it now."""
        idle = self._reason()
        if idle is not None and self.idle is None:
            log.warning("event=idle reason=%r", idle)
        elif idle is None and self.idle is not None:
            log.info("event=serving")
        self.idle = idle
        if idle is None and not in_group:
            await client.must_subscribe(self._frames, qos=1)
            await client.publish_confirmed(self.presence, _ONLINE, retain=True)
        elif idle is not None and in_group:
            await client.unsubscribe(self._frames)
            await client.publish_confirmed(self.presence, b"", retain=True)
        return idle is None

    def _reason(self) -> str | None:
        """Why the server should serve no camera; None if it should."""
        if not self.shared and not self._claim.held:
            return f"standing by: {_NO_SHARING}, or serve.group is empty, and another server serves"
        reason = None
        for camera_info in self._online.values():
            if (reason := self._misfit(camera_info)) is None:
                return None
        if reason is None:
            return None
        return f"serving no camera: the model fits none of the cameras that are online: {reason}"
