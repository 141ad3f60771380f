"""Runs a shell command for each event; the event is JSON on its standard input, and in environment variables."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from dataclasses import dataclass

from sagelink.monitor.events.delivery import Attempt
from sagelink.pipeline.files.outbox import OutboxItem

log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_IN_ENVIRONMENT = ("id", "rule", "action", "camera", "label", "prob")


@dataclass(slots=True)
class EventCommand:
    """A command. One that fails is reported and not run again for the same event."""

    command: str
    timeout_s: float = _TIMEOUT_S
    _failure: str | None = None  # of the last run

    async def send(self, item: OutboxItem) -> Attempt:
        """Runs the command once."""
        values = json.loads(item.content)
        given = {f"SAGELINK_EVENT_{key.upper()}": str(values[key]).replace("\0", "") for key in _IN_ENVIRONMENT}
        try:
            process = await asyncio.create_subprocess_shell(
                self.command, stdin=asyncio.subprocess.PIPE, env=os.environ | given, start_new_session=True
            )
        except OSError as error:
            return Attempt("later", f"the command cannot be started: {error.strerror}")
        try:
            async with asyncio.timeout(self.timeout_s):
                await process.communicate(item.content.encode() + b"\n")
            self._note(None if process.returncode == 0 else f"exit code {process.returncode}")
        except TimeoutError:
            self._note(f"stopped after {self.timeout_s:g} s")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return Attempt("delivered")

    def _note(self, failure: str | None) -> None:
        if failure is not None and failure != self._failure:
            log.warning("event=event_command_failed reason=%r", failure)
        self._failure = failure
