"""The camera's state machine by tables: when, what happens, and what becomes of it."""

from __future__ import annotations

import pytest

from sagelink.stages.cameras.supervisor import CameraState, Fault, Patience, Supervisor

PATIENCE = Patience(open_timeout=5, read_timeout=6, stall_after=2, first_wait=0.5, longest_wait=4)


def started(patience: Patience = PATIENCE, chance: float = 0.0) -> Supervisor:
    """A camera that was told at 0 s to connect."""
    supervisor = Supervisor(patience, 0.0, chance=lambda: chance)
    assert supervisor.tick(0.0) == "open"
    return supervisor


# Each step: time, event (a Fault, "frame", "end", or "tick"), what tick orders then, and the state after it.
STORIES = {
    "frames keep it running": [
        (1.0, "frame", None, CameraState.RUNNING),
        (2.9, "frame", None, CameraState.RUNNING),
        (4.8, "tick", None, CameraState.RUNNING),
    ],
    "silence is a stall, a frame ends it": [
        (1.0, "frame", None, CameraState.RUNNING),
        (3.0, "tick", None, CameraState.STALLED),
        (3.5, "frame", None, CameraState.RUNNING),
        (5.4, "tick", None, CameraState.RUNNING),
    ],
    "a stall beyond the read time-out gives the thread up": [
        (1.0, "frame", None, CameraState.RUNNING),
        (3.0, "tick", None, CameraState.STALLED),
        (6.9, "tick", None, CameraState.STALLED),
        (7.0, "tick", "abandon", CameraState.BACKOFF),
        (7.4, "tick", None, CameraState.BACKOFF),
        (7.5, "tick", "open", CameraState.CONNECTING),
    ],
    "a loop that was late finds the stall and its end at once": [
        (1.0, "frame", None, CameraState.RUNNING),
        (60.0, "tick", None, CameraState.STALLED),
        (64.0, "tick", "abandon", CameraState.BACKOFF),
    ],
    "an open that does not come back is given up a grace after its own time-out": [
        (5.9, "tick", None, CameraState.CONNECTING),
        (6.0, "tick", "abandon", CameraState.BACKOFF),
    ],
    "waits double up to the longest": [
        (0.0, Fault.REFUSED, None, CameraState.BACKOFF),
        (0.5, "tick", "open", CameraState.CONNECTING),
        (0.5, Fault.REFUSED, None, CameraState.BACKOFF),
        (1.4, "tick", None, CameraState.BACKOFF),
        (1.5, "tick", "open", CameraState.CONNECTING),
        (1.5, Fault.REFUSED, None, CameraState.BACKOFF),
        (3.5, "tick", "open", CameraState.CONNECTING),
        (3.5, Fault.REFUSED, None, CameraState.BACKOFF),
        (7.5, "tick", "open", CameraState.CONNECTING),
        (7.5, Fault.REFUSED, None, CameraState.BACKOFF),
        (11.5, "tick", "open", CameraState.CONNECTING),
    ],
    "ten seconds of health start the waits over": [
        (0.0, Fault.REFUSED, None, CameraState.BACKOFF),
        (0.5, "tick", "open", CameraState.CONNECTING),
        (1.0, "frame", None, CameraState.RUNNING),
        (2.5, "frame", None, CameraState.RUNNING),
        (4.0, "frame", None, CameraState.RUNNING),
        (11.0, "frame", None, CameraState.RUNNING),
        (11.1, Fault.END_OF_FILE, None, CameraState.BACKOFF),
        (11.6, "tick", "open", CameraState.CONNECTING),
    ],
    "less does not": [
        (0.0, Fault.REFUSED, None, CameraState.BACKOFF),
        (0.5, "tick", "open", CameraState.CONNECTING),
        (1.0, "frame", None, CameraState.RUNNING),
        (2.5, "frame", None, CameraState.RUNNING),
        (2.5, Fault.END_OF_FILE, None, CameraState.BACKOFF),
        (3.4, "tick", None, CameraState.BACKOFF),
        (3.5, "tick", "open", CameraState.CONNECTING),
    ],
    "a wrong password is tried rarely": [
        (0.1, Fault.UNAUTHORISED, None, CameraState.BACKOFF),
        (30.0, "tick", None, CameraState.BACKOFF),
        (30.1, "tick", "open", CameraState.CONNECTING),
    ],
    "the end is the end": [
        (1.0, "frame", None, CameraState.RUNNING),
        (1.1, "end", None, CameraState.ENDED),
        (99.0, "tick", None, CameraState.ENDED),
    ],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_stories(story: list[tuple[float, object, str | None, CameraState]]) -> None:
    supervisor = started()
    for step, (now_s, event, order, state) in enumerate(story):
        match event:
            case Fault():
                supervisor.fail(now_s, event)
            case "frame":
                supervisor.frame(now_s)
            case "end":
                supervisor.end(now_s)
        assert (supervisor.tick(now_s), supervisor.state) == (order, state), f"step {step} at {now_s} s"


def test_jitter_shortens_a_wait_by_up_to_half() -> None:
    for chance, wait_s in ((0.0, 0.5), (0.5, 0.375), (1.0, 0.25)):
        supervisor = started(chance=chance)
        supervisor.fail(0.0, Fault.REFUSED)
        assert supervisor.wake_s == wait_s


def test_it_remembers_the_fault_until_frames_come_again() -> None:
    supervisor = started()
    supervisor.frame(1.0)
    assert (supervisor.fault, supervisor.recoveries) == (None, 0)
    supervisor.fail(2.0, Fault.END_OF_FILE)
    supervisor.tick(3.0)
    assert (supervisor.state, supervisor.fault) == (CameraState.CONNECTING, Fault.END_OF_FILE)
    supervisor.frame(3.5)
    assert (supervisor.fault, supervisor.recoveries, supervisor.attempts) == (None, 1, 2)


def test_a_read_timeout_below_the_stall_time_still_holds() -> None:
    supervisor = started(Patience(read_timeout=1, stall_after=2))
    supervisor.frame(1.0)
    assert supervisor.tick(1.9) is None
    assert supervisor.tick(2.0) == "abandon"


def test_a_finished_camera_needs_no_waking() -> None:
    supervisor = started()
    supervisor.end(1.0)
    assert supervisor.wake_s is None
