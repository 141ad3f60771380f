"""The planner: which operating point a frame gets for the bytes that it may have, and the message that fits.

The frontier knows the median frame. How much harder than that a frame is to code shows in its first message; the ratio
of sizes corrects what every line is expected to cost, and the search goes on from there. A frame that is hard for one
format may be easy for another, so each has a ratio of its own once it has coded a message. A handful of messages are
coded at most, and the best that fits is kept, so the cap holds whatever a coder does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.types import OperatingPoint
from stages.frontier import Knob, Line

MOST_CODED = 6  # messages a frame
_FULL = 0.97  # of the cap: no better fit is looked for
_CAUTION = 0.98  # of the target after each message that was too long


@dataclass(frozen=True, slots=True)
class Plan:
    """A message that fits, and what it is expected to be worth."""

    point: OperatingPoint
    message: bytes
    agreement: float
    weight: float
    kept: int = 0  # units that the server is to add from memory
    alone: float = 0.0  # the weight if it cannot


def plan(
    lines: Sequence[Line], code: Callable[[OperatingPoint], bytes], cap_bytes: int, slack: float = 0.0
) -> Plan | int:
    """The plan of highest expected agreement whose message has at most `cap_bytes`; or one of up to `slack` less
    agreement, where that is cheaper.

    When no message fits: the bytes of the shortest that was coded. `code` makes the whole message at an operating
    point.
    """
    ratios = _Ratios()
    coded: dict[OperatingPoint, int] = {}
    best: Plan | None = None
    target = float(cap_bytes)

    def attempt(line: Line, setting: int) -> int:
        nonlocal best
        point = line.at(setting)
        message = code(point)
        coded[point] = len(message)
        ratios.learn(line, len(message) / line.size(setting))
        if len(message) <= cap_bytes and (best is None or line.agreement(setting) >= best.agreement):
            best = Plan(point, message, line.agreement(setting), line.weight(setting))
        return len(message)

    while len(coded) < MOST_CODED - 1:
        choice = _choose(lines, ratios, target, slack)
        if choice is None or choice.line.at(choice.setting) in coded:
            break
        size = attempt(choice.line, choice.setting)
        if size > cap_bytes:
            target *= _CAUTION
        elif choice.saving or size >= _FULL * cap_bytes:
            break
    if best is None:
        line = min(lines, key=lambda line: line.sizes[0] * ratios.of(line))
        if line.at(int(line.settings[0])) not in coded:
            attempt(line, int(line.settings[0]))
    return min(coded.values()) if best is None else best


class _Ratios:
    """How many times the median frame's bytes this frame needs: in a format, and until that is known, in the last that
    had the same knob."""

    def __init__(self) -> None:
        self._of_format: dict[str, float] = {}
        self._last: dict[Knob, float] = {"quality": 1.0, "units": 1.0}

    def learn(self, line: Line, ratio: float) -> None:
        self._of_format[_format(line)] = self._last[line.knob] = ratio

    def of(self, line: Line) -> float:
        return self._of_format.get(_format(line), self._last[line.knob])


def _format(line: Line) -> str:
    """What does the coding: a whole frame's file goes by the format that the codec strips."""
    return line.base.codec.partition("-")[0]


@dataclass(frozen=True, slots=True)
class _Choice:
    line: Line
    setting: int
    size: float  # expected bytes
    saving: bool  # the line could go higher within the target


def _choose(lines: Sequence[Line], ratios: _Ratios, target: float, slack: float) -> _Choice | None:
    """The cheapest setting of the lines with all but `slack` of the highest agreement within `target` bytes."""
    highest = [(line, line.affordable(target / ratios.of(line))) for line in lines]
    within = [(line, setting) for line, setting in highest if setting is not None]
    if not within:
        return None
    goal = max(line.agreement(setting) for line, setting in within) - slack
    choices = []
    for line, most in within:
        setting = line.reaching(goal)
        if setting is not None and setting <= most:
            choices.append(_Choice(line, setting, line.size(setting) * ratios.of(line), setting < most))
    return min(choices, key=lambda choice: choice.size)
