"""Log records as safe lines: their form, their way to the terminal, and the last warning for a panel."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO, TypeAlias

from sagelink.pipeline.text import one_line, safe_text

MAX_LINE = 2000  # characters; a reason that another side gives has no limit of its own
_FORM = "%(levelname)s %(name)s %(message)s"

_ExceptionInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class OneLineFormatter(logging.Formatter):
    """Writes each record as one safe line of limited length, and a traceback as indented lines below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = one_line(super().formatMessage(record))
        cut = len(line) - MAX_LINE
        return line if cut <= 0 else f"{line[:MAX_LINE]}... ({cut} more characters)"

    def formatException(self, ei: _ExceptionInfo) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in safe_text(text).split("\n"))


class TerminalLog(logging.StreamHandler[TextIO]):
    """Writes log lines to what is standard error at that moment: a live panel replaces it while it is on the screen,
    and prints the lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(OneLineFormatter(_FORM))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


@dataclass(frozen=True, slots=True)
class Warned:
    """A log line of level warning or above."""

    line: str
    at_s: float  # monotonic clock


class LastWarning(logging.Handler):
    """Keeps the last warning of all loggers while its body runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(OneLineFormatter("%(message)s"))
        self.last: Warned | None = None

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.last = Warned(self.format(record).partition("\n")[0], time.monotonic())
