"""The deadline of a server's reply in a replay; a live run has `ship.deadline`."""

from __future__ import annotations

# Stream time stands still while a replay waits for a reply; this limit only ends the wait for a dead server.
REPLAY_DEADLINE_S = 30.0
