"""What a run has heard lately from its cameras and its server: ages instead of states that nobody confirms any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

_HEARD_S = 10.0  # a reply within this time shows that the server is there
_NO_REPLY_S = 3.0  # messages that get no reply for longer show that it is not
_WATCH_EVERY_S = 1.0


class LinkState(StrEnum):
    """How the way to the server and back works."""

    UP = "up"  # a reply arrived within the last seconds
    QUIET = "quiet"  # nothing was heard, and no message waits in vain: nothing was sent
    SILENT = "silent"  # messages are sent, and no reply arrives
    DOWN = "down"  # the link accepts no message


class LinkWatch:
    """Measures for how long the link of a run has accepted messages, or refused them."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._refusal: Callable[[], str | None] = lambda: "not connected yet"
        self._accepts = False
        self._since_s = clock_s()

    def follow(self, refusal: Callable[[], str | None]) -> None:
        """`refusal`: as `EdgeLink.refusal`."""
        self._refusal = refusal

    async def run(self) -> None:
        """Notices changes while nobody asks for the state."""
        while True:
            self._look()
            await asyncio.sleep(_WATCH_EVERY_S)

    def state(self, stats: Mapping[str, Any]) -> dict[str, Any]:
        """Keys `link`, `link_s` and `link_state` of /api/stats, from the others (`LiveStats.snapshot`)."""
        reason, now_s = self._look()
        state = link_state(reason, stats["reply_age_s"], stats["unanswered_s"])
        return {"link": reason, "link_s": round(now_s - self._since_s, 1), "link_state": state}

    def _look(self) -> tuple[str | None, float]:
        """The reason why the link accepts no message, and the time."""
        reason, now_s = self._refusal(), self._clock_s()
        if (reason is None) is not self._accepts:
            self._accepts, self._since_s = reason is None, now_s
        return reason, now_s


def link_state(refusal: str | None, reply_age_s: float | None, unanswered_s: float | None) -> LinkState:
    """`refusal`: why the link accepts no message; `reply_age_s`: age of the last reply; `unanswered_s`: for how long
    messages have had no reply. None where there is none."""
    if refusal is not None:
        return LinkState.DOWN
    if unanswered_s is not None and unanswered_s > _NO_REPLY_S:
        return LinkState.SILENT
    return LinkState.UP if reply_age_s is not None and reply_age_s <= _HEARD_S else LinkState.QUIET


def link_words(state: Mapping[str, Any]) -> str:
    """The state of the link for people; `state`: content of /api/stats. The page says the same (fresh.js)."""
    match state["link_state"]:
        case LinkState.UP:
            return "up"
        case LinkState.SILENT:
            return f"no reply for {age(state['unanswered_s'])}"
        case LinkState.DOWN:
            return f"{state['link']} (for {age(state['link_s'])})"
        case _:
            if (heard_s := state["reply_age_s"]) is not None:
                return f"nothing sent for {age(heard_s)}"
            return "no reply yet" if state["offloaded"] else "nothing sent yet"


def camera_silence(camera: Mapping[str, Any]) -> str | None:
    """Why the picture of a camera is not current; None when it is. `camera`: its entry in /api/stats."""
    health = camera["health"] or {"state": "running", "fault": None}
    stale = camera["silent_s"] > camera["stale_after_s"]
    if health["state"] == "running" and not stale:
        return None
    words = [f"no picture for {age(camera['silent_s'])}"] if stale else []
    if health["state"] != "running":
        words.insert(0, f"{health['state']}: {health['fault']}" if health["fault"] else health["state"])
    return ", ".join(words)


def silences(state: Mapping[str, Any]) -> list[str]:
    """What is missing, as lines without names, for readers without a token; `state`: content of /api/stats."""
    cameras = state["cameras"].values()
    silent = sum(camera_silence(camera) is not None for camera in cameras)
    lines = [f"{silent} of {len(cameras)} cameras give no picture"] if silent else []
    match state["link_state"]:
        case LinkState.SILENT:
            lines.append(f"the server has not replied for {age(state['unanswered_s'])}")
        case LinkState.DOWN:
            lines.append(f"the link has been down for {age(state['link_s'])}")
    return lines


def age(seconds: float) -> str:
    """A length of time for people: `12 s`, `3 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
