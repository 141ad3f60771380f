"""The label desks of a run: one for each head, because a label answers the question of one head.

In: the desks by head name. Out: the desk that a request names, its state, and the list of the heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagelink.monitor.labelling.desk import LabelDesk
from sagelink.monitor.labelling.view import FIRST_HEAD
from sagelink.pipeline.errors import UsageError


class LabelDesks:
    """Raises UsageError where a head is named that the run does not have."""

    def __init__(self, first: LabelDesk, further: Mapping[str, LabelDesk] | None = None) -> None:
        self._desks = {FIRST_HEAD: first, **(further or {})}

    def of(self, head: str = FIRST_HEAD) -> LabelDesk:
        desk = self._desks.get(head)
        if desk is None:
            names = ", ".join(map(repr, self._desks))
            raise UsageError(f"this page has no head {head[:64]!r}; accepted: {names}")
        return desk

    def state(self, head: str = FIRST_HEAD) -> dict[str, Any]:
        """The state of a desk, with the heads that can be chosen; docs/dashboard.md lists the keys."""
        heads = [{"name": name, "classes": [*desk.known()]} for name, desk in self._desks.items()]
        return self.of(head).state() | {"head": head, "heads": heads}

    def teach(self, head: str, action: str, values: Mapping[str, object]) -> None:
        """As `LabelDesk.teach`; only one head is taught at a time, because teaching takes a processor and memory."""
        desk = self.of(head)
        if action == "begin":
            for name, other in self._desks.items():
                if other is not desk and other.is_teaching:
                    which = f"head {name!r}" if name else "the first head"
                    raise UsageError(f"{which} is being taught; accepted: wait, or stop it")
        desk.teach(action, values)

    def recount(self) -> None:
        for desk in self._desks.values():
            desk.recount()

    def close(self) -> None:
        for desk in self._desks.values():
            desk.close()
