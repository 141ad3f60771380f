"""How long a run waits for a server's reply."""

from __future__ import annotations

# In a replay stream time stands still while a reply is on its way; this limit only ends the wait for a dead server.
REPLAY_DEADLINE_S = 30.0
