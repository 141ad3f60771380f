"""Checks who sent an evidence message: it must be of the run that has announced the camera, with the right MAC."""

from __future__ import annotations

import time

from sagelink.transport.envelope import MAX_MESSAGE_BYTES, MalformedMessage, claimed_seq
from sagelink.transport.link import Message
from sagelink.transport.message_auth import EXTRA_BYTES, MessageAuth
from sagelink.transport.mqtt.camera_registry import CameraRegistry
from sagelink.transport.mqtt.topics import PREFIX_BYTES

MAX_PAYLOAD_BYTES = MAX_MESSAGE_BYTES + EXTRA_BYTES + PREFIX_BYTES
_HEADER_BYTES = 16  # that are kept of a message that will be refused
NOT_ANNOUNCED = "the camera has not announced itself"
_OTHER_SESSION = "another run has announced itself as this camera: two runs at a time need different mqtt.node"
_REPEATED = "a frame that this run has sent before: a repeated message"


class EvidenceCheck:
    """Opens evidence payloads."""

    def __init__(self, registry: CameraRegistry, auth: MessageAuth | None) -> None:
        """`registry`: of the cameras that are online. `auth`: None where messages have no MAC."""
        self._registry = registry
        self._auth = auth
        self._last_frames: dict[str, tuple[str, int]] = {}  # session and seq of the last authentic message, by camera

    def message(self, address: str, payload: bytes) -> Message:
        """The message in a payload; with a refusal unless it is of the run that has announced the camera."""
        prefix, data = payload[:PREFIX_BYTES], payload[PREFIX_BYTES:]
        now_s, session = time.monotonic(), self._registry.session_of(address)
        if session is None or not session.startswith(prefix.hex()):
            refusal = NOT_ANNOUNCED if session is None else _OTHER_SESSION
            return Message(address, data[:_HEADER_BYTES], now_s, prefix, refusal=refusal)
        if self._auth is None:
            return Message(address, data, now_s, prefix)
        try:
            data = self._auth.open(data, address, bytes.fromhex(session))
            self._check_new(address, session, data)
        except MalformedMessage as error:
            return Message(address, data[:_HEADER_BYTES], now_s, prefix, refusal=str(error))
        return Message(address, data, now_s, bytes.fromhex(session))

    def _check_new(self, address: str, session: str, data: bytes) -> None:
        """Raises MalformedMessage if the run has sent this or a later frame of the camera before."""
        seq = claimed_seq(data) or 0
        last_session, last_seq = self._last_frames.get(address, (session, -1))
        if last_session == session and seq <= last_seq:
            raise MalformedMessage(_REPEATED)
        if len(self._last_frames) > 2 * len(self._registry.online) + 1000:
            self._last_frames = {
                known: last for known, last in self._last_frames.items() if known in self._registry.online
            }
        self._last_frames[address] = session, seq
