"""The values that flow between the stages of an edge run: frames, evidence, replies and verdicts.

Each value holds the value that it was made from, so the last one holds the whole history of its frame:

    Frame -> Scored -> Metered -> Selected -> Evidence -> Sent -> Answered -> Verdict

A frame that is not offloaded leaves this chain early as `EdgeOnly`, with the reason. It also ends in a `Verdict`.
`trace()` of any of these values returns the steps that the frame has passed, by name. The answers that the values hold
are in `pipeline.answers`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sagelink.pipeline.answers import UNKNOWN, Answer, HeadAnswer, Origin, ProvisionalAnswer, TaughtClasses

Pixels: TypeAlias = NDArray[np.uint8]  # (H, W, 3) RGB
Units: TypeAlias = NDArray[np.intp]  # (K,) row-major unit indices
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class Drop(StrEnum):
    """The reason why the server did not answer a frame."""

    PRIVATE = "private"  # the picture must not leave the site
    GATE = "gate"  # the edge answer was good enough
    WORTH = "worth"  # the expected gain of a message was too small
    BUDGET = "budget"  # no useful evidence fits into the remaining budget
    LINK = "link"  # too many unacknowledged messages, or the transport refused the message
    LATE = "late"  # no reply before the deadline
    REFUSED = "refused"  # the server could not use the evidence
    SUPERSEDED = "superseded"  # a newer frame replaced this one before scoring: the edge is too slow
    ERROR = "error"  # a stage raised an error on this frame
    PAUSED = "paused"  # an operator paused the camera
    STOPPED = "stopped"  # the run ended while the frame was in the graph


@dataclass(frozen=True, slots=True)
class Trace:
    """The steps that a frame has passed; None for each step that it has not reached."""

    frame: Frame
    scored: Scored | None = None
    metered: Metered | None = None
    selected: Selected | None = None
    evidence: Evidence | None = None
    sent: Sent | None = None
    answered: Answered | None = None


@dataclass(frozen=True, slots=True)
class FrameEvent:
    """The event of another system, such as Frigate, that a frame shows."""

    id: str
    camera: str  # the name that the other system gives to the camera
    label: str | None = None  # what the other system detected
    score: float | None = None  # its score for the label, 0..1
    box: Box | None = None  # pixels of the other system's whole picture, or fractions of it where none is above 1
    private: bool = False  # the frame must not leave the site


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured picture."""

    seq: int  # 0, 1, 2 ... without gaps, per camera
    camera: str
    capture_ns: int  # monotonic clock when the picture was in memory
    stream_s: float  # time of the source since its first frame; never decreases
    pixels: Pixels
    capture_ms: float  # time to wait for the picture and to decode it
    name: str | None = None  # file name, if each frame is a file
    truth: int | None = None  # class id, if the source knows it
    wall_ns: int = 0  # time of day at the capture, since 1970; unlike `capture_ns` it may jump
    pts_s: float | None = None  # original timestamp of the source: may start anywhere, jump and wrap
    event: FrameEvent | None = None  # for a source of events

    def age_ms(self, now_ns: int) -> float:
        """Time since the capture; `now_ns` is on the monotonic clock."""
        return (now_ns - self.capture_ns) / 1e6

    @property
    def private(self) -> bool:
        """Whether it must not leave the site."""
        return self.event is not None and self.event.private

    @property
    def frame(self) -> Frame:
        return self

    def trace(self) -> Trace:
        return Trace(self)


@dataclass(frozen=True, slots=True)
class EdgeView:
    """The part of a frame that the edge model scored, and the features by which frames of a camera are compared."""

    crop: Box  # fractions of the frame's view
    class_token: NDArray[np.float32]  # (D,) class token of this part
    thumbnail: NDArray[np.float32]  # (16, 16) grey levels of the whole frame


@dataclass(frozen=True, slots=True)
class Scored:
    """A frame after the edge model's one forward pass."""

    frame: Frame
    picture: Pixels  # (S, S, 3): the cropped view as both models get it; units are its patches
    answer: Answer
    importance: NDArray[np.float32]  # (N,) per unit of the server's grid
    embeddings: NDArray[np.float32]  # (N, D)
    edge_view: EdgeView
    score_ms: float
    novelty: float = 0.0  # distance to the nearest taught class, over the limit; 0 without a head
    further: tuple[HeadAnswer, ...] = ()  # by the further heads of the camera
    taught: TaughtClasses | None = None  # of the answer; None: the model's own classes
    repeated: bool = False  # the picture has not changed: the scores are those of an earlier frame

    @property
    def unknown(self) -> bool:
        """Whether the picture is none of the taught classes."""
        return self.novelty > 1

    def trace(self) -> Trace:
        return replace(self.frame.trace(), scored=self)


@dataclass(frozen=True, slots=True)
class Metered:
    """A scored frame with the bits that the uplink budget would grant it."""

    scored: Scored
    allowance_bits: int | None  # None: unlimited
    window_bits: int  # charged in the window that ends now
    budget_bits: int | None  # limit of a window now; None: unlimited
    asked_s: float = 0.0  # budget clock
    provisional: ProvisionalAnswer | None = None  # None: scenes are not tracked
    max_bytes: int | None = None  # largest message with enough expected gain; None: limited by the allowance only
    bound_bits: int | None = None  # the part of the allowance that is no rate: of quotas and the ledger; None: no limit
    requested: bool = False  # an operator wants to see this camera now
    bit_price: float = 0.0  # gain, in right answers, that a bit must bring to be sent
    rate_bps: float | None = None  # of the budget; None: unlimited

    @property
    def frame(self) -> Frame:
        return self.scored.frame

    @property
    def answer(self) -> Answer:
        """The answer without a further server answer."""
        return self.provisional.answer if self.provisional else self.scored.answer

    @property
    def doubt(self) -> float:
        """1 minus the probability of the answer. Taught classes may be states that change without a cut, so there the
        less sure of the scene's and the frame's own answer counts."""
        return 1 - (min(self.answer.prob, self.scored.answer.prob) if self.scored.taught else self.answer.prob)

    def trace(self) -> Trace:
        return replace(self.scored.trace(), metered=self)


@dataclass(frozen=True, slots=True)
class Selected:
    """A frame that the gate lets pass, with its units in progressive order: any prefix is a good selection."""

    metered: Metered
    order: Units
    select_ms: float

    @property
    def frame(self) -> Frame:
        return self.metered.frame

    def trace(self) -> Trace:
        return replace(self.metered.trace(), selected=self)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The settings of the evidence codec."""

    codec: str
    units: int  # number of units
    side: int  # pixels per side of the coded picture, if the codec codes a picture
    quality: int  # on the scale of the codec
    view: float = 1.0  # side of the sent part as a fraction of the picture: below 1 is a zoom


@dataclass(frozen=True, slots=True)
class Evidence:
    """The message to the server, fitted to the allowance."""

    selected: Selected
    units: Units  # in the message, ascending
    point: OperatingPoint
    weight: float  # measured weight of the server's answer to such evidence
    message: bytes
    wire_bits: int  # message and framing of the transport
    encode_ms: float
    further: tuple[bytes, ...] = ()  # ids of the further heads that the message asks for
    crop: Box = WHOLE  # part of the view that the units cover, as fractions

    @property
    def frame(self) -> Frame:
        return self.selected.frame

    def trace(self) -> Trace:
        return replace(self.selected.trace(), evidence=self)


TopClasses: TypeAlias = tuple[tuple[int, ...], tuple[float, ...]]  # class ids, most likely first; log-probabilities


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to one message."""

    seq: int
    refusal: str | None  # reason why the evidence could not be used; then there are no classes
    class_ids: tuple[int, ...]  # of the message's head or the model's own classes, most likely first
    log_probs: tuple[float, ...]
    units: int  # number of units that the server classified
    server_ms: float  # from arrival to reply
    queue_ms: float = 0.0  # part of `server_ms`: waiting for the model
    waiting: int = 0  # frames in the server's queue at the reply: its load
    further: tuple[TopClasses, ...] = ()  # of the message's further heads, in its order; empty classes: no answer

    @property
    def top(self) -> TopClasses:
        return self.class_ids, self.log_probs


@dataclass(frozen=True, slots=True)
class Sent:
    """Evidence that was charged to the budget and given to the transport."""

    evidence: Evidence
    sent_s: float  # budget clock at the charge
    window_bits: int  # after the charge
    sent_ns: int  # monotonic clock
    reply: asyncio.Future[Reply]

    @property
    def frame(self) -> Frame:
        return self.evidence.frame

    def trace(self) -> Trace:
        return replace(self.evidence.trace(), sent=self)


@dataclass(frozen=True, slots=True)
class Answered:
    """Evidence with the server's reply."""

    sent: Sent
    reply: Reply
    ship_ms: float  # from the charge to the reply, without the server's own time

    @property
    def frame(self) -> Frame:
        return self.sent.frame

    def trace(self) -> Trace:
        return replace(self.sent.trace(), answered=self)


@dataclass(frozen=True, slots=True)
class PendingVerdict:
    """Evidence without a reply yet: leads to the provisional verdict of its frame."""

    sent: Sent

    @property
    def frame(self) -> Frame:
        return self.sent.frame

    def trace(self) -> Trace:
        return self.sent.trace()


Work: TypeAlias = Frame | Scored | Metered | Selected | Evidence | Sent | Answered


@dataclass(frozen=True, slots=True)
class EdgeOnly:
    """A frame that gets no server answer: its last step, and the reason."""

    work: Work
    reason: Drop

    @property
    def frame(self) -> Frame:
        return self.work.frame

    def trace(self) -> Trace:
        """Without `answered`: a reply that came in spite of the reason is not used."""
        return replace(self.work.trace(), answered=None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The one final answer for a frame or, if `pending`, the provisional answer until the final one.

    `answer` is None only if the edge model gave none.
    """

    frame: Frame
    answer: Answer | None
    origin: Origin
    drop: Drop | None
    edge: Answer | None
    server: Answer | None
    units: Units  # sent units, ascending; empty if nothing was sent
    point: OperatingPoint | None  # of the sent evidence
    sent_s: float | None
    wire_bits: int
    allowance_bits: int | None
    window_bits: int | None
    budget_bits: int | None  # limit of a window when the budget was asked
    latency_ms: dict[str, float | None]
    scored: Scored | None  # None if the frame was never scored
    message: bytes | None  # as sent
    reply: Reply | None = None  # None if the server did not answer
    asked_s: float | None = None  # budget clock when the budget was asked; None if it was not
    provisional: ProvisionalAnswer | None = None  # None if scenes are not tracked
    weight: float = 0.0  # of the server's answer to this frame
    server_seq: int | None = None  # newest frame whose server answer contributed to `answer`
    revised_from: Answer | None = None  # the provisional answer, if a server answer changed it
    pending: bool = False
    crop: Box = WHOLE  # fractions of the frame's view: the sent part, or else the part that the edge scored
    bound_bits: int | None = None  # bits that quotas and the ledger granted when the budget was asked; None: no limit
    further: tuple[HeadAnswer, ...] = ()  # by the further heads of the camera
    bit_price: float = 0.0  # gain, in right answers, that a bit had to bring when the budget was asked

    @property
    def unknown(self) -> bool:
        """Whether the picture is none of the taught classes; `answer` then says which of them it resembles most."""
        return self.answer is not None and self.scored is not None and self.scored.unknown

    @property
    def was_scored(self) -> bool:
        """Whether the edge model computed this frame; False if it did not change, or was never scored."""
        return self.scored is not None and not self.scored.repeated

    @property
    def class_id(self) -> int | None:
        """Class of the answer; None if it is unknown, or if there is no answer."""
        return None if self.answer is None or self.unknown else self.answer.class_id

    @property
    def taught(self) -> TaughtClasses | None:
        """The classes of the answers; None: the model's own classes, or no answer."""
        return self.scored.taught if self.scored else None

    def labels(self, own: tuple[str, ...]) -> tuple[str, ...]:
        """Class names of all answers. `own`: names of the model's own classes."""
        return self.taught.labels if self.taught else own

    def label(self, own: tuple[str, ...]) -> str | None:
        """Name of the class, `UNKNOWN`, or None if there is no answer. `own`: names of the model's own classes."""
        if self.answer is None:
            return None
        return UNKNOWN if self.unknown else self.labels(own)[self.answer.class_id]

    def class_probs(self) -> dict[str, float] | None:
        """By a multi-label head: the probability of each class; None for all other answers."""
        if self.answer is None or self.taught is None or self.taught.several is None:
            return None
        return self.taught.several.probs(np.exp(self.answer.log_probs))

    @property
    def lost_units(self) -> int:
        """Number of sent units that the server's answer lacks because a packet was lost; 0 without an answer."""
        return max(0, len(self.units) - self.reply.units) if self.reply else 0
