"""The vocabulary: what flows along the arrows of the stage graph.

Each value holds the one that it was made from, so the last of them tells a frame's whole story:

    Frame -> Scored -> Metered -> Selected -> Evidence -> Sent -> Answered -> Verdict

A frame that is not offloaded leaves this chain early as `EdgeOnly`, with the reason, and ends in a `Verdict` all the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]  # (H, W, 3) RGB
Units: TypeAlias = NDArray[np.intp]  # (K,) row-major unit indices
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


class Drop(StrEnum):
    """Why a frame was not answered by the server."""

    GATE = "gate"  # the edge answer was good enough
    WORTH = "worth"  # a message would add too little to what is known of the scene
    BUDGET = "budget"  # no useful evidence fits what the rolling budget has left
    LINK = "link"  # too many messages unacknowledged, or the transport refused the message
    LATE = "late"  # no reply before the deadline
    REFUSED = "refused"  # the server could not use the evidence
    SUPERSEDED = "superseded"  # a newer frame took its place before it was scored: the edge is the slow side
    ERROR = "error"  # a stage failed on this frame
    STOPPED = "stopped"  # the run ended while the frame was on its way


Origin: TypeAlias = Literal["edge", "server", "fused"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured picture."""

    seq: int  # 0, 1, 2 ... without gaps, of its camera
    camera: str
    capture_ns: int  # monotonic clock, when the picture was in memory
    stream_s: float  # the source's own time since its first frame, never decreasing
    pixels: Pixels
    capture_ms: float  # waiting for it and decoding it
    name: str | None = None  # the file, where each frame is one
    truth: int | None = None  # class id, where the source knows it
    wall_ns: int = 0  # time of day at the capture, since 1970; may jump, unlike `capture_ns`
    pts_s: float | None = None  # the source's own timestamp as it came: may start anywhere, jump and wrap

    def age_ms(self, now_ns: int) -> float:
        """Since the capture; `now_ns` on the monotonic clock."""
        return (now_ns - self.capture_ns) / 1e6

    @property
    def frame(self) -> Frame:
        return self


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer."""

    class_id: int
    prob: float
    log_probs: NDArray[np.float32]  # (C,)


@dataclass(frozen=True, slots=True)
class Look:
    """What the edge looked at in a frame, and what frames of a camera are compared by."""

    crop: Box  # of the frame's view, in shares
    class_token: NDArray[np.float32]  # (D,) of that part: the class token
    thumbnail: NDArray[np.float32]  # (16, 16) grey levels of the whole frame


@dataclass(frozen=True, slots=True)
class Scored:
    """A frame after the edge model's one forward pass."""

    frame: Frame
    picture: Pixels  # (S, S, 3), what both models see of what was looked at; units are its patches
    answer: Answer
    importance: NDArray[np.float32]  # (N,) per unit of the server's grid
    embeddings: NDArray[np.float32]  # (N, D)
    edge_view: Look
    score_ms: float


@dataclass(frozen=True, slots=True)
class SceneEstimate:
    """What was known of a frame's scene when the frame was seen, the frame's own edge answer included."""

    scores: NDArray[np.float32]  # (C,) unnormalised log-probabilities
    server_weight: float  # of the mean of the server's answers in them
    server_seq: int | None  # the newest frame that the server answered for; None: for none of the scene
    server_age_s: float  # since that frame; not a number where there is none
    scene_start_seq: int  # the first frame of the scene
    scene_age_s: float  # since then
    mean_scene_s: float  # mean length of the last scenes


@dataclass(frozen=True, slots=True)
class ServerObservation:
    """A server answer as a scene takes it in."""

    seq: int
    log_probs: NDArray[np.float32]  # (C,)
    weight: float


@dataclass(frozen=True, slots=True)
class ProvisionalAnswer:
    """What is said of a frame at once, where its scene is remembered."""

    answer: Answer  # the scene's, this frame's edge answer included
    estimate: SceneEstimate
    observed_seqs: tuple[int, ...]  # frames whose server answers came in since the frame before


@dataclass(frozen=True, slots=True)
class Metered:
    """A scored frame, and what the uplink budget would grant it."""

    scored: Scored
    allowance_bits: int | None  # None: unlimited
    window_bits: int  # spent in the window that ends now
    budget_bits: int | None  # what a window may hold now; None: unlimited
    asked_s: float = 0.0  # budget clock
    provisional: ProvisionalAnswer | None = None  # None: the frame is for itself
    max_bytes: int | None = None  # of a message that is worth its bits; None: whatever the allowance pays for

    @property
    def frame(self) -> Frame:
        return self.scored.frame

    @property
    def answer(self) -> Answer:
        """What is said without a further answer of the server."""
        return self.provisional.answer if self.provisional else self.scored.answer


@dataclass(frozen=True, slots=True)
class Reference:
    """What the server remembers of a camera and a message may build on."""

    name: bytes  # see transport.remembered
    units: Units  # (K,) ascending: units there that still hold; none where the message begins anew


@dataclass(frozen=True, slots=True)
class Selected:
    """A frame that the gate lets out, with its units in progressive order: any prefix is a good selection."""

    metered: Metered
    order: Units
    select_ms: float
    reference: Reference | None = None  # None: nothing is built on, and nothing need be remembered
    new_units: Units | None = None  # with a base: the units that it has not, those that complete it best first

    @property
    def frame(self) -> Frame:
        return self.metered.frame


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The knobs of the evidence codec."""

    codec: str
    units: int  # how many
    side: int  # pixels on a side of the coded picture, where the codec codes one
    quality: int  # on the codec's own scale
    view: float = 1.0  # side of the part of the picture that is sent, as a share: less is a closer look


@dataclass(frozen=True, slots=True)
class Evidence:
    """The message that travels, fitted to the allowance."""

    selected: Selected
    units: Units  # those in the message, ascending
    point: OperatingPoint
    weight: float  # of the server's answer to such evidence, by measurement
    message: bytes
    wire_bits: int  # message and the transport's framing
    encode_ms: float
    reference_units: int = 0  # further units, which the server remembers
    standalone_weight: float = 0.0  # the weight if it does not
    crop: Box = WHOLE  # of the frame's view, in shares: where the units lie

    @property
    def frame(self) -> Frame:
        return self.selected.frame


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to one message."""

    seq: int
    refusal: str | None  # why the evidence could not be used; then there are no classes
    class_ids: tuple[int, ...]  # most likely first
    log_probs: tuple[float, ...]
    units: int  # how many the server classified with
    server_ms: float  # from arrival to reply
    queue_ms: float = 0.0  # of that, waiting for the model
    waiting: int = 0  # frames that waited there when it answered: a busy server


@dataclass(frozen=True, slots=True)
class Sent:
    """Evidence that was charged and handed to the transport."""

    evidence: Evidence
    sent_s: float  # budget clock at the charge
    window_bits: int  # after the charge
    sent_ns: int  # monotonic clock
    reply: asyncio.Future[Reply]

    @property
    def frame(self) -> Frame:
        return self.evidence.frame


@dataclass(frozen=True, slots=True)
class Answered:
    """Evidence with the server's reply."""

    sent: Sent
    reply: Reply
    ship_ms: float  # from the charge to the reply, less the server's own time

    @property
    def frame(self) -> Frame:
        return self.sent.frame


@dataclass(frozen=True, slots=True)
class PendingVerdict:
    """Evidence that is on its way: what is said of its frame until the reply is there."""

    sent: Sent

    @property
    def frame(self) -> Frame:
        return self.sent.frame


Work: TypeAlias = Frame | Scored | Metered | Selected | Evidence | Sent | Answered


@dataclass(frozen=True, slots=True)
class EdgeOnly:
    """A frame that keeps its edge answer: how far it came, and why no further."""

    work: Work
    reason: Drop

    @property
    def frame(self) -> Frame:
        return self.work.frame


@dataclass(frozen=True, slots=True)
class Verdict:
    """The one final answer for a frame, or, with `awaits`, what is said until then.

    `answer` is None only where the edge model gave none.
    """

    frame: Frame
    answer: Answer | None
    origin: Origin
    drop: Drop | None
    edge: Answer | None
    server: Answer | None
    units: Units  # sent units, ascending; empty when nothing was sent
    point: OperatingPoint | None  # of what was sent
    sent_s: float | None
    wire_bits: int
    allowance_bits: int | None
    window_bits: int | None
    budget_bits: int | None  # what a window might hold when the budget was asked
    latency_ms: dict[str, float | None]
    scored: Scored | None  # None where it was never scored
    message: bytes | None  # what was sent
    reply: Reply | None = None  # where the server answered
    asked_s: float | None = None  # budget clock when the budget was asked; None when it was not
    provisional: ProvisionalAnswer | None = None  # where the scene is remembered
    weight: float = 0.0  # of the server's answer to this frame
    server_seq: int | None = None  # the newest frame whose server answer is in `answer`
    revised_from: Answer | None = None  # what was said at once, where a server answer changed it
    pending: bool = False
    crop: Box = WHOLE  # of the frame's view, in shares: what was sent, or else what the edge looked at

    @property
    def lost_units(self) -> int:
        """Units that were sent and are not in the server's answer: their part was lost. 0 where there is no answer."""
        return max(0, len(self.units) - self.reply.units) if self.reply else 0
