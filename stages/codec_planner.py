"""Chooses a frame's operating point for a limit of bytes: measured curves and an encode function in, `Plan` out.

The curves give the message size of the median frame. The size of a frame's first message, divided by the expected size,
says how much harder this frame is to code; this ratio corrects the expected sizes of all curves, and the search goes on
from there. A frame that is hard for one format may be easy for another, so each format has a ratio of its own once a
message has been coded in it. The ratios of a camera's last frame are the first guess for its next one. The search codes
only a few messages and keeps the best one that fits, so the limit holds whatever the encode function does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sagelink.pipeline.types import OperatingPoint
from sagelink.stages.frontier import Knob, RateQualityCurve

MAX_MESSAGES = 6  # coded per frame
_ENOUGH = 0.97  # of the limit: a message of this size ends the search
_AFTER_TOO_LONG = 0.98  # factor on the target size after a message that was too long
_AFTER_FAILURE = 0.7  # factor on the target size after a message that could not be coded
_MAX_APART = 4.0  # factor between the guesses for two formats

# A packetized message costs more processor time: fewer are coded, and more of the limit may stay unused.
_MAX_PACKETIZED = 3  # messages coded per frame
_MAX_ESTIMATES = 2  # estimates before the first message
_PACKETIZED_TARGET, _PACKETIZED_ENOUGH = 0.94, 0.8  # of the limit


@dataclass(frozen=True, slots=True)
class Plan:
    """A message that fits, with its expected agreement and weight."""

    point: OperatingPoint
    message: bytes
    agreement: float
    weight: float


# From an operating point and the expected bytes to the message; None where it cannot be coded.
EncodeAt: TypeAlias = Callable[[OperatingPoint, float], bytes | None]


def plan_whole(
    curves: Sequence[RateQualityCurve],
    encode: EncodeAt,
    max_bytes: int,
    slack: float = 0.0,
    ratios: SizeRatios | None = None,
) -> Plan | int:
    """The message with the highest expected agreement of at most `max_bytes`; when none fits, the bytes of the shortest
    message that was coded.

    `slack`: agreement that may be given up for a shorter message. `ratios`: of the camera's last frame; they become
    those of this frame.
    """
    search = _Search(curves, encode, max_bytes, slack, ratios)
    search.run(float(max_bytes), _ENOUGH * max_bytes, MAX_MESSAGES - 1)
    if search.best is None:
        search.try_shortest()
        search.run(float(max_bytes), _ENOUGH * max_bytes, MAX_MESSAGES - 1)  # it may show that more would fit
    return search.result()


def plan_packetized(
    curves: Sequence[RateQualityCurve],
    encode: EncodeAt,
    estimate_bytes: Callable[[OperatingPoint], int],
    max_bytes: int,
    slack: float = 0.0,
) -> Plan | int:
    """As `plan_whole`, for messages that are split into parts.

    `estimate_bytes` gives about the size of the message at a point and costs far less than `encode`. The search starts
    from such estimates, aims below the limit and gives up earlier: the caller then plans a message of one part.
    """
    search = _Search(curves, encode, max_bytes, slack)
    target, enough = _PACKETIZED_TARGET * max_bytes, _PACKETIZED_ENOUGH * max_bytes
    for _ in range(_MAX_ESTIMATES):
        choice = search.choose(target)
        if choice is None:
            break
        size = estimate_bytes(choice.point)
        search.ratios.update(choice.curve, size / choice.curve.size(choice.setting))
        if enough <= size <= target:
            break
    search.run(target, enough, _MAX_PACKETIZED)
    return search.result()


@dataclass(frozen=True, slots=True)
class _Choice:
    curve: RateQualityCurve
    setting: int
    size: float  # expected bytes
    saving: bool  # a higher setting of the curve would fit the target too

    @property
    def point(self) -> OperatingPoint:
        return self.curve.at(self.setting)


class _Search:
    """The messages coded for one frame so far, and the next one to try."""

    def __init__(
        self,
        curves: Sequence[RateQualityCurve],
        encode: EncodeAt,
        max_bytes: int,
        slack: float,
        ratios: SizeRatios | None = None,
    ) -> None:
        self.ratios = SizeRatios() if ratios is None else ratios
        self.ratios.begin_frame()
        self.best: Plan | None = None
        self._curves = curves
        self._encode = encode
        self._max_bytes = max_bytes
        self._slack = slack
        self._sizes: dict[OperatingPoint, int] = {}  # bytes of the coded messages

    def run(self, target: float, enough: float, max_messages: int) -> None:
        """Codes up to `max_messages` of about `target` bytes, and stops at one of at least `enough` bytes that fits."""
        while len(self._sizes) < max_messages:
            choice = self.choose(target)
            if choice is None or choice.point in self._sizes:
                return
            size = self._attempt(choice.curve, choice.setting)
            if size is None:
                target = _AFTER_FAILURE * min(target, choice.size)
            elif size > self._max_bytes:
                target *= _AFTER_TOO_LONG
            elif size >= enough or (choice.saving and self._is_within_slack(choice, target)):
                return

    def choose(self, target: float) -> _Choice | None:
        """The cheapest setting within `target` bytes whose agreement is at most `slack` below the highest there."""
        within = self._highest(target)
        if not within:
            return None
        goal = self._goal(within)
        choices = []
        for curve, max_setting in within:
            setting = curve.min_setting_for(goal)
            if setting is not None and setting <= max_setting:
                size = curve.size(setting) * self.ratios.of(curve)
                choices.append(_Choice(curve, setting, size, setting < max_setting))
        return min(choices, key=lambda choice: choice.size)

    def _highest(self, target: float) -> list[tuple[RateQualityCurve, int]]:
        """Each curve that has a setting within `target` bytes of this frame, with the highest such setting."""
        highest = [(curve, curve.max_setting_for(target / self.ratios.of(curve))) for curve in self._curves]
        return [(curve, setting) for curve, setting in highest if setting is not None]

    def _goal(self, within: Sequence[tuple[RateQualityCurve, int]]) -> float:
        return max(curve.agreement(setting) for curve, setting in within) - self._slack

    def _is_within_slack(self, choice: _Choice, target: float) -> bool:
        """Whether the choice is still good enough, now that a message shows how hard this frame is to code."""
        return choice.curve.agreement(choice.setting) >= self._goal(self._highest(target))

    def try_shortest(self) -> None:
        """Codes the message that is expected to be the shortest of all."""
        curve = min(self._curves, key=lambda curve: curve.sizes[0] * self.ratios.of(curve))
        setting = int(curve.settings[0])
        if curve.at(setting) not in self._sizes:
            self._attempt(curve, setting)

    def result(self) -> Plan | int:
        """The best plan, or the bytes of the shortest coded message."""
        return min(self._sizes.values(), default=self._max_bytes + 1) if self.best is None else self.best

    def _attempt(self, curve: RateQualityCurve, setting: int) -> int | None:
        """Codes one message and returns its bytes; None where it could not be coded."""
        point = curve.at(setting)
        message = self._encode(point, curve.size(setting) * self.ratios.of(curve))
        self._sizes[point] = self._max_bytes + 1 if message is None else len(message)
        if message is None:
            return None
        self.ratios.update(curve, len(message) / curve.size(setting))
        agreement = curve.agreement(setting)
        if len(message) <= self._max_bytes and (self.best is None or agreement >= self.best.agreement):
            self.best = Plan(point, message, agreement, curve.weight(setting))
        return len(message)


class SizeRatios:
    """A frame's message size divided by the median frame's, per format.

    A format without a message of its own takes the ratio of the last frame, changed as that of the first format of this
    frame with the same knob. Without an earlier frame it takes the last ratio of any format with the same knob. No
    guess is further from that one than a factor of _MAX_APART.
    """

    def __init__(self) -> None:
        self._of_format: dict[_Format, float] = {}
        self._last: dict[Knob, float] = {"quality": 1.0, "units": 1.0}
        self._measured: dict[Knob, list[_Format]] = {}  # by messages of this frame, in their order

    def begin_frame(self) -> None:
        """From now on, the ratios are guesses for the next frame."""
        self._measured.clear()

    def update(self, curve: RateQualityCurve, ratio: float) -> None:
        knob, form = curve.knob, _format(curve)
        measured = self._measured.setdefault(knob, [])
        if form not in measured:
            measured.append(form)
        if form == measured[0]:  # with each of its messages: else what they differ by would add up from frame to frame
            change = ratio / self.of(curve)
            for other in self._of_format.keys() - measured:
                if other[0] == knob:
                    guess = self._of_format[other] * change
                    self._of_format[other] = min(max(guess, ratio / _MAX_APART), ratio * _MAX_APART)
        self._of_format[form] = self._last[knob] = ratio

    def of(self, curve: RateQualityCurve) -> float:
        return self._of_format.get(_format(curve), self._last[curve.knob])


_Format: TypeAlias = tuple[Knob, str, float]


def _format(curve: RateQualityCurve) -> _Format:
    """Knob, format and view. `webp` sends the content of a `webp-frame` file without its header, so both are one
    format."""
    return curve.knob, curve.point.codec.partition("-")[0], curve.point.view
