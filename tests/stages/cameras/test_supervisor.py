"""The camera's state machine, by tables of events and the states that follow."""

from __future__ import annotations

import pytest

from sagelink.stages.cameras.supervisor import CameraState, CameraTimeouts, FaultKind, Supervisor

TIMEOUTS = CameraTimeouts(open_timeout=5, read_timeout=6, stall_after=2, first_wait=0.5, max_wait=4)


def started(timeouts: CameraTimeouts = TIMEOUTS, jitter: float = 0.0) -> Supervisor:
    """A supervisor that ordered a connection at 0 s."""
    supervisor = Supervisor(timeouts, 0.0, jitter=lambda: jitter)
    assert supervisor.tick(0.0) == "open"
    return supervisor


# Each step: time in s, event (a FaultKind, "frame", "end" or "tick"), the action that `tick` then returns, the state.
SEQUENCES = {
    "frames keep it running": [
        (1.0, "frame", None, CameraState.RUNNING),
        (2.9, "frame", None, CameraState.RUNNING),
        (4.8, "tick", None, CameraState.RUNNING),
    ],
    "silence is a stall, and a frame ends it": [
        (1.0, "frame", None, CameraState.RUNNING),
        (3.0, "tick", None, CameraState.STALLED),
        (3.5, "frame", None, CameraState.RUNNING),
        (5.4, "tick", None, CameraState.RUNNING),
    ],
    "a stall beyond the read time-out abandons the thread": [
        (1.0, "frame", None, CameraState.RUNNING),
        (3.0, "tick", None, CameraState.STALLED),
        (6.9, "tick", None, CameraState.STALLED),
        (7.0, "tick", "abandon", CameraState.BACKOFF),
        (7.4, "tick", None, CameraState.BACKOFF),
        (7.5, "tick", "open", CameraState.CONNECTING),
    ],
    "a late event loop finds the stall and its end at once": [
        (1.0, "frame", None, CameraState.RUNNING),
        (60.0, "tick", None, CameraState.STALLED),
        (64.0, "tick", "abandon", CameraState.BACKOFF),
    ],
    "an open that does not return is abandoned a grace time after its time-out": [
        (5.9, "tick", None, CameraState.CONNECTING),
        (6.0, "tick", "abandon", CameraState.BACKOFF),
    ],
    "waits double up to the maximum": [
        (0.0, FaultKind.REFUSED, None, CameraState.BACKOFF),
        (0.5, "tick", "open", CameraState.CONNECTING),
        (0.5, FaultKind.REFUSED, None, CameraState.BACKOFF),
        (1.4, "tick", None, CameraState.BACKOFF),
        (1.5, "tick", "open", CameraState.CONNECTING),
        (1.5, FaultKind.REFUSED, None, CameraState.BACKOFF),
        (3.5, "tick", "open", CameraState.CONNECTING),
        (3.5, FaultKind.REFUSED, None, CameraState.BACKOFF),
        (7.5, "tick", "open", CameraState.CONNECTING),
        (7.5, FaultKind.REFUSED, None, CameraState.BACKOFF),
        (11.5, "tick", "open", CameraState.CONNECTING),
    ],
    "ten seconds of running reset the wait": [
        (0.0, FaultKind.REFUSED, None, CameraState.BACKOFF),
        (0.5, "tick", "open", CameraState.CONNECTING),
        (1.0, "frame", None, CameraState.RUNNING),
        (2.5, "frame", None, CameraState.RUNNING),
        (4.0, "frame", None, CameraState.RUNNING),
        (11.0, "frame", None, CameraState.RUNNING),
        (11.1, FaultKind.END_OF_FILE, None, CameraState.BACKOFF),
        (11.6, "tick", "open", CameraState.CONNECTING),
    ],
    "less than ten seconds do not reset the wait": [
        (0.0, FaultKind.REFUSED, None, CameraState.BACKOFF),
        (0.5, "tick", "open", CameraState.CONNECTING),
        (1.0, "frame", None, CameraState.RUNNING),
        (2.5, "frame", None, CameraState.RUNNING),
        (2.5, FaultKind.END_OF_FILE, None, CameraState.BACKOFF),
        (3.4, "tick", None, CameraState.BACKOFF),
        (3.5, "tick", "open", CameraState.CONNECTING),
    ],
    "after a wrong password the wait is long": [
        (0.1, FaultKind.UNAUTHORISED, None, CameraState.BACKOFF),
        (30.0, "tick", None, CameraState.BACKOFF),
        (30.1, "tick", "open", CameraState.CONNECTING),
    ],
    "an ended camera stays ended": [
        (1.0, "frame", None, CameraState.RUNNING),
        (1.1, "end", None, CameraState.ENDED),
        (99.0, "tick", None, CameraState.ENDED),
    ],
}


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES)
def test_sequences(sequence: list[tuple[float, object, str | None, CameraState]]) -> None:
    supervisor = started()
    for step, (now_s, event, action, state) in enumerate(sequence):
        match event:
            case FaultKind():
                supervisor.fail(now_s, event)
            case "frame":
                supervisor.frame(now_s)
            case "end":
                supervisor.end(now_s)
        assert (supervisor.tick(now_s), supervisor.state) == (action, state), f"step {step} at {now_s} s"


def test_jitter_shortens_a_wait_by_up_to_half() -> None:
    for jitter, wait_s in ((0.0, 0.5), (0.5, 0.375), (1.0, 0.25)):
        supervisor = started(jitter=jitter)
        supervisor.fail(0.0, FaultKind.REFUSED)
        assert supervisor.wake_s == wait_s


def test_the_fault_lasts_until_frames_arrive_again() -> None:
    supervisor = started()
    supervisor.frame(1.0)
    assert (supervisor.fault, supervisor.recoveries) == (None, 0)
    supervisor.fail(2.0, FaultKind.END_OF_FILE)
    supervisor.tick(3.0)
    assert (supervisor.state, supervisor.fault) == (CameraState.CONNECTING, FaultKind.END_OF_FILE)
    supervisor.frame(3.5)
    assert (supervisor.fault, supervisor.recoveries, supervisor.attempts) == (None, 1, 2)


def test_a_read_timeout_below_the_stall_time_still_holds() -> None:
    supervisor = started(CameraTimeouts(read_timeout=1, stall_after=2))
    supervisor.frame(1.0)
    assert supervisor.tick(1.9) is None
    assert supervisor.tick(2.0) == "abandon"


def test_an_ended_camera_has_no_next_tick() -> None:
    supervisor = started()
    supervisor.end(1.0)
    assert supervisor.wake_s is None
