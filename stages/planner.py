"""The planner: which operating point a frame gets for the bytes that it may have, and the message that fits.

The frontier knows the median frame. How much harder than that a frame is to code shows in its first message; the ratio
of sizes corrects what every line is expected to cost, and the search goes on from there. A frame that is hard for one
format may be easy for another, so each has a ratio of its own once it has coded a message. A handful of messages are
coded at most, and the best that fits is kept, so the cap holds whatever a coder does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sagelink.pipeline.types import OperatingPoint
from sagelink.stages.frontier import Knob, RateQualityCurve

MOST_CODED = 6  # messages a frame
_FULL = 0.97  # of the cap: no better fit is looked for
_CAUTION = 0.98  # of the target after each message that was too long
_LESS = 0.7  # of the target after a message that could not be made
# Where messages are dear to code: most a frame, looks at them before; what is aimed at and what will do, of the cap.
_MOST_DEAR, _PROBES, _AIM, _ENOUGH = 4, 2, 0.94, 0.8


@dataclass(frozen=True, slots=True)
class Plan:
    """A message that fits, and what it is expected to be worth."""

    point: OperatingPoint
    message: bytes
    agreement: float
    weight: float
    reference_units: int = 0  # units that the server is to add from memory
    standalone_weight: float = 0.0  # the weight if it cannot


Coder = Callable[[OperatingPoint, float], bytes | None]


def plan(
    lines: Sequence[RateQualityCurve],
    code: Coder,
    cap_bytes: int,
    slack: float = 0.0,
    probe: Callable[[OperatingPoint], int] | None = None,
) -> Plan | int:
    """The plan of highest expected agreement whose message has at most `cap_bytes`; or one of up to `slack` less
    agreement, where that is cheaper.

    When no message fits: the bytes of the shortest that was coded. `code` makes the whole message at an operating
    point, from which so many bytes are expected; None where there can be none. `probe` tells about how many there would
    be, where that is far cheaper than `code`: then more of the cap may stay unused, and it is given up earlier.
    """
    ratios = _Ratios()
    coded: dict[OperatingPoint, int] = {}
    best: Plan | None = None
    target, full, most = float(cap_bytes), _FULL * cap_bytes, MOST_CODED
    if probe is not None:
        target, full, most = _AIM * cap_bytes, _ENOUGH * cap_bytes, _MOST_DEAR
        for _ in range(_PROBES):
            choice = _choose(lines, ratios, target, slack)
            if choice is None:
                break
            about = probe(choice.line.at(choice.setting))
            ratios.learn(choice.line, about / choice.line.size(choice.setting))
            if full <= about <= target:
                break

    def attempt(line: RateQualityCurve, setting: int) -> int | None:
        nonlocal best
        point = line.at(setting)
        message = code(point, line.size(setting) * ratios.of(line))
        coded[point] = cap_bytes + 1 if message is None else len(message)
        if message is None:
            return None
        ratios.learn(line, len(message) / line.size(setting))
        if len(message) <= cap_bytes and (best is None or line.agreement(setting) >= best.agreement):
            best = Plan(point, message, line.agreement(setting), line.weight(setting))
        return len(message)

    while len(coded) < most - 1:
        choice = _choose(lines, ratios, target, slack)
        if choice is None or choice.line.at(choice.setting) in coded:
            break
        size = attempt(choice.line, choice.setting)
        if size is None:
            target = _LESS * min(target, choice.size)
        elif size > cap_bytes:
            target *= _CAUTION
        elif choice.saving or size >= full:
            break
    if best is None and probe is None:
        line = min(lines, key=lambda line: line.sizes[0] * ratios.of(line))
        if line.at(int(line.settings[0])) not in coded:
            attempt(line, int(line.settings[0]))
    return min(coded.values(), default=cap_bytes + 1) if best is None else best


class _Ratios:
    """How many times the median frame's bytes this frame needs: in a format, and until that is known, in the last that
    had the same knob."""

    def __init__(self) -> None:
        self._of_format: dict[tuple[str, float], float] = {}
        self._last: dict[Knob, float] = {"quality": 1.0, "units": 1.0}

    def learn(self, line: RateQualityCurve, ratio: float) -> None:
        self._of_format[_format(line)] = self._last[line.knob] = ratio

    def of(self, line: RateQualityCurve) -> float:
        return self._of_format.get(_format(line), self._last[line.knob])


def _format(line: RateQualityCurve) -> tuple[str, float]:
    """What does the coding, and what is coded: a whole frame's file goes by the format that the codec strips."""
    return line.point.codec.partition("-")[0], line.point.view


@dataclass(frozen=True, slots=True)
class _Choice:
    line: RateQualityCurve
    setting: int
    size: float  # expected bytes
    saving: bool  # the line could go higher within the target


def _choose(lines: Sequence[RateQualityCurve], ratios: _Ratios, target: float, slack: float) -> _Choice | None:
    """The cheapest setting of the lines with all but `slack` of the highest agreement within `target` bytes."""
    highest = [(line, line.affordable(target / ratios.of(line))) for line in lines]
    within = [(line, setting) for line, setting in highest if setting is not None]
    if not within:
        return None
    goal = max(line.agreement(setting) for line, setting in within) - slack
    choices = []
    for line, most in within:
        setting = line.min_setting_for(goal)
        if setting is not None and setting <= most:
            choices.append(_Choice(line, setting, line.size(setting) * ratios.of(line), setting < most))
    return min(choices, key=lambda choice: choice.size)
