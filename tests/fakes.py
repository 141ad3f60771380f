"""Fakes that several tests share: sample values, a link with a chosen fate per message, and a fixed clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.answers import Answer
from sagelink.pipeline.channel import Channel, ChannelClosed
from sagelink.pipeline.types import (
    WHOLE,
    EdgeView,
    Evidence,
    Frame,
    Metered,
    OperatingPoint,
    Pixels,
    Reply,
    Scored,
    Selected,
    Units,
)
from sagelink.stages.zoom import thumbnail_of
from sagelink.transport.codecs import Canvas
from sagelink.transport.codecs.raw import RawZstd
from sagelink.transport.envelope import MAX_MESSAGE_BYTES
from sagelink.transport.evidence_claim import peek
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.reply_message import encode_reply

SIDE, PATCH, CLASSES = 4, 4, 5
CANVAS = Canvas(SIDE, PATCH)

# answer: one reply; lose: no reply; refuse: the link refuses the message; duplicate: the reply arrives twice;
# late: the reply waits for `release`; garble: the reply is malformed; unknown: the reply names another frame;
# reject: the server refuses the message
Fate = Literal["answer", "lose", "refuse", "duplicate", "late", "garble", "unknown", "reject"]


async def settle(rounds: int = 20) -> None:
    """Lets every task that is ready run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


def make_picture(side: int = SIDE, patch_size: int = PATCH, seed: int = 0) -> Pixels:
    """Noise (side * patch_size, side * patch_size, 3) uint8, which no codec compresses."""
    return np.random.default_rng(seed).integers(0, 256, (side * patch_size,) * 2 + (3,), np.uint8)


def make_answer(probs: Iterable[float]) -> Answer:
    values = np.array(list(probs), np.float64)
    best = int(values.argmax())
    return Answer(best, float(values[best]), np.log(values).astype(np.float32))


def make_frame(seq: int = 0, stream_s: float = 0.0, pixels: Pixels | None = None) -> Frame:
    return Frame(seq, "camera", 0, stream_s, make_picture() if pixels is None else pixels, capture_ms=1.0)


def make_scored(
    seq: int = 0,
    stream_s: float = 0.0,
    probs: Iterable[float] = (0.4, 0.3, 0.1, 0.1, 0.1),
    side: int = SIDE,
    patch_size: int = PATCH,
) -> Scored:
    picture = make_picture(side, patch_size, seed=seq)
    rng = np.random.default_rng(seq)
    importance: NDArray[np.float32] = rng.random(side**2, np.float32)
    embeddings: NDArray[np.float32] = rng.standard_normal((side**2, 8), np.float32)
    summary: NDArray[np.float32] = rng.standard_normal(8).astype(np.float32)
    frame = make_frame(seq, stream_s, picture)
    look = EdgeView(WHOLE, summary, thumbnail_of(picture))
    return Scored(frame, picture, make_answer(probs), importance, embeddings, look, score_ms=2.0)


def make_metered(scored: Scored | None = None, allowance_bits: int | None = None, window_bits: int = 0) -> Metered:
    limit_bits = None if allowance_bits is None else allowance_bits + window_bits
    return Metered(make_scored() if scored is None else scored, allowance_bits, window_bits, limit_bits)


def make_selected(metered: Metered | None = None, order: Iterable[int] | None = None) -> Selected:
    metered = make_metered() if metered is None else metered
    units: Units = np.array(range(len(metered.scored.importance)) if order is None else list(order), np.intp)
    return Selected(metered, units, select_ms=3.0)


def raw_point(units: int = SIDE**2) -> OperatingPoint:
    return OperatingPoint("raw-zstd", units, SIDE * PATCH, 0)


def make_evidence(seq: int = 0, stream_s: float = 0.0, units: Iterable[int] = (1, 5, 6)) -> Evidence:
    """An encoded message that holds units of noise."""
    selected = make_selected(make_metered(make_scored(seq, stream_s)))
    chosen = np.sort(np.array(list(units), np.intp))
    payload = RawZstd().encode(selected.metered.scored.picture, chosen, raw_point(len(chosen)), CANVAS)
    message = encode_evidence(EvidenceMessage(seq, SIDE, PATCH, RawZstd.number, chosen, payload))
    return Evidence(selected, chosen, raw_point(len(chosen)), 0.5, message, wire_bits=8 * len(message), encode_ms=4.0)


def make_reply(seq: int = 0, units: int = 3, refusal: str | None = None) -> Reply:
    if refusal is not None:
        return Reply(seq, refusal, (), (), 0, 0.0)
    return Reply(seq, None, (2, 0), (float(np.log(0.5)), float(np.log(0.25))), units, server_ms=0.5)


class FakeLink:
    """An EdgeLink that treats its n-th message by the n-th fate; it answers messages beyond the last fate."""

    def __init__(self, fates: Iterable[Fate] = (), framing_bytes: int = 0) -> None:
        self.sent: list[bytes] = []  # messages that the link accepted
        self.offered = 0
        self.down: str | None = None  # the reason when the link refuses every message
        self.head_down: str | None = None  # the reason when the server lacks the camera's head
        self.longest_bytes = MAX_MESSAGE_BYTES
        self.asked_ready = 0
        self.on_send: Callable[[], None] = lambda: None
        self._fates = iter(fates)
        self._framing_bytes = framing_bytes
        self._late: list[tuple[str, bytes]] = []
        self._down: Channel[tuple[str, bytes]] = Channel("replies", capacity=1000)

    def wire_bits(self, camera: str, message_bytes: int) -> int:
        return 8 * (message_bytes + self._framing_bytes)

    def max_message_bytes(self, camera: str) -> int:
        return self.longest_bytes

    async def __aenter__(self) -> FakeLink:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def refusal(self) -> str | None:
        return self.down

    def head_refusal(self, fingerprint: bytes) -> str | None:
        return self.head_down

    async def ready(self) -> None:
        self.asked_ready += 1

    async def send(self, camera: str, message: bytes) -> str | None:
        self.offered += 1
        self.on_send()
        fate = next(self._fates, "answer")
        if fate == "refuse" or self._down.closed:
            return "refused"
        self.sent.append(message)
        claim = peek(message)
        assert claim is not None, "the edge sent a message that is not evidence"
        seq = claim.seq
        reply = camera, encode_reply(make_reply(seq, refusal="no" if fate == "reject" else None))
        match fate:
            case "answer" | "reject":
                await self._down.put(reply)
            case "duplicate":
                await self._down.put(reply)
                await self._down.put(reply)
            case "late":
                self._late.append(reply)
            case "garble":
                await self._down.put((camera, reply[1][:-1]))
            case "unknown":
                await self._down.put((camera, encode_reply(make_reply(seq + 1000))))
            case "lose":
                pass
        return None

    async def release(self) -> None:
        """Delivers the late replies."""
        while self._late:
            await self._down.put(self._late.pop(0))

    def replies(self) -> AsyncIterator[tuple[str, bytes]]:
        return aiter(self._down)

    def close(self) -> None:
        self._down.close()


class StubClock:
    """A BudgetClock whose time a test sets."""

    def __init__(self, time_s: float = 0.0) -> None:
        self.time_s = time_s

    def now_s(self, frame: Frame) -> float:
        return self.time_s


async def drained(channel: Channel[object]) -> list[object]:
    """Returns all items of a channel until it closes."""
    items = []
    while True:
        try:
            items.append(await channel.get())
        except ChannelClosed:
            return items
