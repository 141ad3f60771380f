"""The changes to aiortc: fewer acknowledgements, fewer FORWARD TSN, and a handshake that repeats early."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from sagelink.transport.webrtc.aiortc_internals import join_acknowledgements, join_forward_tsn, repeat_handshake
from tests.transport.webrtc.test_links import until


class Sctp:
    """The parts of an RTCSctpTransport and of its ICE transport that are changed."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._forward_tsn_chunk: str | None = None
        self.arriving: asyncio.Queue[bytes] = asyncio.Queue()
        ice = SimpleNamespace(_send=self._send, _recv=self.arriving.get)
        self.transport = SimpleNamespace(transport=ice)

    async def _send_sack(self) -> None:
        self.sent.append("sack")

    async def _transmit(self) -> None:
        if self._forward_tsn_chunk is not None:
            self.sent.append(self._forward_tsn_chunk)
            self._forward_tsn_chunk = None

    async def _send(self, data: bytes) -> None:
        self.sent.append(data.hex())


async def test_packets_that_arrive_together_are_acknowledged_once() -> None:
    sctp: Any = Sctp()
    join_acknowledgements(sctp)
    for _ in range(5):
        await sctp._send_sack()
    assert sctp.sent == []
    await until(lambda: sctp.sent == ["sack"])
    await sctp._send_sack()
    await until(lambda: sctp.sent == ["sack", "sack"])


async def test_the_newest_of_several_forward_tsn_leaves_later() -> None:
    sctp: Any = Sctp()
    join_forward_tsn(sctp)
    for chunk in ("first", "second", "third"):
        sctp._forward_tsn_chunk = chunk
        await sctp._transmit()
    assert sctp.sent == ["first"]
    await until(lambda: sctp.sent == ["first", "third"])


async def test_a_handshake_without_an_answer_is_repeated_and_data_is_not() -> None:
    sctp: Any = Sctp()
    repeat_handshake(sctp)
    ice = sctp.transport.transport
    await ice._send(b"\x17data")
    await ice._send(b"\x16hello")
    await until(lambda: sctp.sent == ["1764617461", *3 * ["1668656c6c6f"]])


async def test_a_repeat_of_the_peer_is_no_answer() -> None:
    sctp: Any = Sctp()
    repeat_handshake(sctp)
    ice = sctp.transport.transport
    for data in (b"\x16hello", b"\x16hello"):
        sctp.arriving.put_nowait(data)
    await ice._recv()
    await ice._send(b"\x16answer")
    await ice._recv()
    await until(lambda: len(sctp.sent) == 3)


async def test_an_answer_ends_the_repeats() -> None:
    sctp: Any = Sctp()
    repeat_handshake(sctp)
    ice = sctp.transport.transport
    await ice._send(b"\x16hello")
    for data in (b"\x01stun", b"\x16answer"):
        sctp.arriving.put_nowait(data)
        assert await ice._recv() == data
    await asyncio.sleep(0.8)
    assert len(sctp.sent) == 1
