"""Publishes the messages of many simulated cameras over one socket, as ready MQTT 5 packets.

A client library needs more processor time for 2,000 messages a second than the console that is measured. Here a packet
is one concatenation: all messages of a second have the same number, so they are coded once.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from multiprocessing.sharedctypes import Synchronized

import numpy as np

from sagelink.pipeline.types import OperatingPoint, Reply
from sagelink.transport.codecs import Canvas, codec_by_name
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.link import CameraInfo
from sagelink.transport.mqtt.topics import PREFIX_BYTES, SESSION_BYTES, Topics, encode_state
from sagelink.transport.reply_message import encode_reply

_SIDE, _PATCH = 14, 8
_INFO = CameraInfo(_SIDE, _PATCH, "0123456789abcdef", 1.0)
_TOPICS = Topics("sagelink")
_NODES = 40
_BATCHES = 50  # a second; the cameras of a batch send at the same time
_CONNECT = bytes.fromhex("10 0d 00044d515454 05 02 0000 00 0000")  # MQTT 5, clean start, no keep-alive, no client id
_PUBLISH, _RETAIN = 0x30, 0x01  # QoS 0


class PublishingSocket:
    """A connection to a broker that only publishes, with QoS 0."""

    def __init__(self, port: int) -> None:
        """Raises OSError, or ConnectionError if the broker refuses."""
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.settimeout(None)
        self._socket.sendall(_CONNECT)
        answer = self._socket.recv(256)
        if len(answer) < 4 or answer[0] != 0x20 or answer[3]:
            raise ConnectionError(f"the broker refuses the connection: {answer.hex()}")

    def send(self, packets: Iterable[bytes]) -> None:
        self._socket.sendall(b"".join(packets))

    def close(self) -> None:
        self._socket.close()


def packet(topic: str, payload: bytes, retain: bool = False) -> bytes:
    """A PUBLISH packet without properties."""
    name = topic.encode()
    return _packet(_PUBLISH | (_RETAIN if retain else 0), len(name).to_bytes(2, "big") + name + b"\0", payload)


def _packet(kind: int, head: bytes, payload: bytes) -> bytes:
    length, size = len(head) + len(payload), b""
    while True:
        length, digit = divmod(length, 128)
        size += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([kind]) + size + head + payload


def addresses(cameras: int) -> list[str]:
    return [f"box-{number % _NODES:02d}/camera-{number:04d}" for number in range(cameras)]


def announcements(session: bytes, cameras: list[str]) -> Iterator[bytes]:
    """The retained states of the cameras and of their nodes."""
    for node in dict.fromkeys(address.partition("/")[0] for address in cameras):
        yield packet(_TOPICS.state(node), encode_state(session, True), True)
    for address in cameras:
        yield state_packet(session, address, online=True)


def state_packet(session: bytes, address: str, online: bool) -> bytes:
    """The retained state of one camera."""
    return packet(_TOPICS.state(address), encode_state(session, online, _INFO if online else None), True)


def publish(port: int, cameras: int, seconds: float, sent: Synchronized[int]) -> None:
    """The cameras and their server: each camera sends one evidence message a second, and gets an answer.

    `sent`: counts the messages.
    """
    session, all_cameras = secrets.token_bytes(SESSION_BYTES), addresses(cameras)
    units, evidence = np.arange(_SIDE**2), _payload()
    connection = PublishingSocket(port)
    connection.send(announcements(session, all_cameras))
    batches = [all_cameras[number::_BATCHES] for number in range(_BATCHES)]
    began = time.monotonic()
    for seq in range(round(seconds)):
        prefix = session[:PREFIX_BYTES]
        message = prefix + encode_evidence(EvidenceMessage(seq, _SIDE, _PATCH, 5, units, evidence))
        reply = Reply(seq, None, (seq % 16, 99), (-0.1, -2.5), len(units), 12.0, 2.0, 0)
        answer = prefix + encode_reply(reply)
        for place, batch in enumerate(batches):
            time.sleep(max(0.0, began + seq + place / _BATCHES - time.monotonic()))
            connection.send(packet(_TOPICS.evidence(address), message) for address in batch)
            connection.send(packet(_TOPICS.verdict(address), answer) for address in batch)
            sent.value += 2 * len(batch)
    connection.close()


def _payload() -> bytes:
    """The coded units of a noisy picture: about 1 kB."""
    picture = np.random.default_rng(0).integers(60, 200, (_SIDE * _PATCH, _SIDE * _PATCH, 3), np.uint8)
    units = np.arange(_SIDE**2)
    point = OperatingPoint("webp-frame", len(units), 64, 20)
    return codec_by_name("webp-frame").encode(picture, units, point, Canvas(_SIDE, _PATCH))
