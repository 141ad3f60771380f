"""Wires the second opinions of a run: sources of events, the sub-labels on disk, and their delivery to Frigate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sagelink.app.edge.disk import RunDisk
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import SagelinkError
from sagelink.pipeline.files.outbox import Outbox
from sagelink.pipeline.files.output_files import OPINIONS, cannot_open
from sagelink.pipeline.tasks import background
from sagelink.pipeline.threads import Worker
from sagelink.stages.nvr.capture import EventCapture
from sagelink.stages.nvr.delivery import SubLabelDelivery
from sagelink.stages.nvr.event_requests import CATCH_UP_S
from sagelink.stages.nvr.frigate_api import open_frigate_api
from sagelink.stages.nvr.frigate_names import known_names, unknown_names
from sagelink.stages.nvr.second_opinions import SecondOpinions

if TYPE_CHECKING:
    from sagelink.stages.capture import Capture

log = logging.getLogger(__name__)

_KEEP_S = 86_400.0  # in the queue
_FLUSH_EVERY_S = 0.5
_NAMES_WAITS_S = (0.0, 5.0, 30.0, 120.0)  # before each attempt
_DRAIN_S = 0.5  # for the last sub-labels of a run; the rest waits on disk for the next run


class SecondOpinionService:
    """The sink `opinions`, and the delivery of what it decides."""

    def __init__(self, config: Config, labels: tuple[str, ...]) -> None:
        """`labels`: names of the model's own classes. Opens the queue. Raises UsageError."""
        self._config = config.frigate
        self._api = open_frigate_api(config.frigate)
        self._outbox = Outbox(queue_path(config), "frigate.queue", time.time(), _KEEP_S)
        self._out = config.output.out
        self.opinions = SecondOpinions(config.frigate, labels, self._outbox)
        self._delivery = SubLabelDelivery(self._outbox, self._api, self.opinions.delivered)
        self.opinions.on_queued = self._delivery.notify

    def begin(self, disk: RunDisk) -> None:
        """Opens the file of outcomes in the output folder. Raises SagelinkError."""
        if self._out is not None:
            path = self._out / OPINIONS
            try:
                self.opinions.write_lines(disk.lines(path), path)
            except OSError as error:
                raise cannot_open(path, error) from None

    @contextlib.asynccontextmanager
    async def delivering(self, captures: Sequence[Capture]) -> AsyncIterator[None]:
        """Delivers while the body runs."""
        answered = self.opinions.answered(CATCH_UP_S)
        for capture in captures:
            if isinstance(capture, EventCapture):
                capture.report_to(self.opinions, answered)
        async with background(self._delivery.run()), background(self._flush()), background(self._check_names()):
            yield

    async def _flush(self) -> None:
        disk = Worker("opinions")
        try:
            while True:
                await asyncio.sleep(_FLUSH_EVERY_S)
                await disk.call(self.opinions.flush)
        finally:
            disk.close()

    async def _check_names(self) -> None:
        """Compares the names in the configuration with those of Frigate, once."""
        for wait_s in _NAMES_WAITS_S:
            await asyncio.sleep(wait_s)
            if (known := known_names(await self._api.config())) is not None:
                for line in unknown_names(self._config, known):
                    log.warning("event=unknown_name %s", line)
                return

    async def drain(self) -> None:
        """Waits a short time for the delivery of the last sub-labels."""
        await self._delivery.drain(_DRAIN_S)

    def close(self) -> None:
        """Closes the queue."""
        with contextlib.suppress(SagelinkError):
            self.opinions.flush()
        self._outbox.close()


def queue_path(config: Config) -> Path:
    """The file of the sub-labels that wait: `frigate.queue`, or one for this Frigate in the user's state folder."""
    if config.frigate.queue is not None:
        return config.frigate.queue
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    name = re.sub(r"[^A-Za-z0-9.]+", "-", config.frigate.url.partition("://")[2]).strip("-")
    return Path(state) / "sagelink" / f"frigate-{name}.sqlite"
