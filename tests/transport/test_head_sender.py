"""The edge's side of a transfer: it pays for each part, spreads them over windows, and sends no evidence meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from sagelink.pipeline.tasks import background
from sagelink.transport.head_messages import HeadPart, HeadState, HeadStatus
from sagelink.transport.head_sender import HeadSender, NoHeads, with_heads
from sagelink.transport.link import CameraInfo
from tests.patience import PATIENCE_S

PRINT, FILE = b"p" * 16, bytes(range(250)) * 20


class OneHead(NoHeads):
    def fingerprints(self, camera: str) -> tuple[bytes, ...]:
        return (PRINT,) if camera == "door" else ()

    def content(self, fingerprint: bytes) -> bytes | None:
        return FILE if fingerprint == PRINT else None


class Transfer:
    """A sender whose link and budget a test controls."""

    def __init__(self, window_bits: int | None = None) -> None:
        self.parts: list[HeadPart] = []
        self.charged: list[int] = []
        self.room_bits = 10**9
        self.connected = True
        self.sender = HeadSender(
            OneHead(), self._send, lambda size: 8 * (size + 100), self._charge, lambda: window_bits
        )

    async def _send(self, part: HeadPart) -> bool:
        if self.connected:
            self.parts.append(part)
        return self.connected

    def _charge(self, bits: int) -> bool:
        if bits > self.room_bits:
            return False
        self.room_bits -= bits
        self.charged.append(bits)
        return True

    @property
    def content(self) -> bytes:
        return b"".join(part.data for part in sorted(self.parts, key=lambda part: part.offset))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_head_is_sent_when_it_is_wanted_and_evidence_waits() -> None:
    transfer = Transfer()
    sender = transfer.sender
    async with background(sender.run()):
        assert sender.refusal(PRINT) is None
        sender.take(HeadStatus(PRINT, HeadState.WANTED))
        assert "receives the head" in (sender.refusal(PRINT) or "")
        assert sender.refusal(b"o" * 16) is None
        await until(lambda: len(transfer.parts) == 5)
        assert "on its way" in (sender.refusal(PRINT) or "")
        sender.take(HeadStatus(PRINT, HeadState.HELD))
        assert sender.refusal(PRINT) is None
    assert transfer.content == FILE
    assert transfer.charged == [8 * (1000 + 32 + 100)] * 5


async def test_a_part_costs_at_most_half_a_window_and_waits_for_room() -> None:
    transfer = Transfer(window_bits=8 * 1000)
    transfer.room_bits = 8 * 1000
    async with background(transfer.sender.run()):
        transfer.sender.take(HeadStatus(PRINT, HeadState.WANTED))
        await until(lambda: transfer.room_bits < 8 * 400)
        await asyncio.sleep(0.1)
        few = len(transfer.parts)
        transfer.room_bits = 10**9
        await until(lambda: transfer.content == FILE)
    assert max(transfer.charged) <= 8 * 500
    assert 1 <= few < len(transfer.parts)


async def test_a_lost_connection_repeats_no_part_that_was_sent() -> None:
    transfer = Transfer()
    transfer.room_bits = 2 * 8 * 1132
    async with background(transfer.sender.run()):
        transfer.sender.take(HeadStatus(PRINT, HeadState.WANTED))
        await until(lambda: len(transfer.parts) == 2)
        transfer.sender.forget()
        transfer.room_bits = 10**9
        await asyncio.sleep(0.1)
        assert len(transfer.parts) == 2
        transfer.sender.take(HeadStatus(PRINT, HeadState.WANTED, offset=2000))
        await until(lambda: transfer.content == FILE)
    assert len(transfer.parts) == 5


async def test_a_refusal_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    transfer = Transfer()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            transfer.sender.take(HeadStatus(PRINT, HeadState.REFUSED, reason="no room"))
    assert transfer.sender.refusal(PRINT) == "the server refuses the head of the camera: no room"
    assert caplog.text.count("event=head_refused") == 1
    transfer.sender.take(HeadStatus(b"x" * 16, HeadState.WANTED))  # a head that the run does not have
    async with background(transfer.sender.run()):
        await asyncio.sleep(0.05)
    assert transfer.parts == []


async def test_a_camera_with_several_heads_waits_for_each_on_its_own() -> None:
    other, earlier = b"o" * 16, b"e" * 16

    class Offers(OneHead):
        backbone = "b"

        def fingerprints(self, camera: str) -> tuple[bytes, ...]:
            return PRINT, other

        def earlier_fingerprints(self, camera: str) -> tuple[bytes, ...]:
            return (earlier,)

    transfer = Transfer()
    sender = transfer.sender
    sender.offers = Offers()
    announced = with_heads(CameraInfo(14, 16, "c", 1.0), sender.offers, "door")
    assert (announced.heads, announced.earlier_heads) == ((PRINT.hex(), other.hex()), (earlier.hex(),))
    sender.announced(["door"])
    sender.take(HeadStatus(PRINT, HeadState.HELD))
    assert sender.refusal(PRINT) is None
    assert "has not said yet" in (sender.refusal(other) or "")
    assert sender.refusal(earlier) is None
