"""Log records: one safe line each, at what standard error is at that moment."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from sagelink.pipeline.log_lines import MAX_LINE, LastWarning, OneLineFormatter, TerminalLog


@pytest.fixture
def logger() -> logging.Logger:
    logger = logging.Logger("sagelink.test")
    logger.addHandler(TerminalLog())
    return logger


def test_a_reason_of_another_side_forges_no_line(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.warning("event=refused reason=%s", "busy\nWARNING sagelink.app.edge.run event=paid\x1b[2K")
    assert capsys.readouterr().err == (
        r"WARNING sagelink.test event=refused reason=busy\nWARNING sagelink.app.edge.run event=paid\x1b[2K" "\n"
    )


def test_a_traceback_is_indented_below_its_line(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("x\nWARNING forged\x07")
    except ValueError:
        logger.warning("event=failed", exc_info=True)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "WARNING sagelink.test event=failed"
    assert all(line.startswith("  | ") for line in others)
    assert others[-1] == r"  | WARNING forged\x07"


def test_a_line_is_limited(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.warning("%s", "x" * 1_000_000)
    line = capsys.readouterr().err
    assert len(line) < MAX_LINE + 100
    assert "more characters)" in line


def test_lines_follow_standard_error(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        monkeypatch.setattr(sys, "stderr", out := io.StringIO())
        logger.warning("event=down")
        assert out.getvalue() == "WARNING sagelink.test event=down\n"


def test_the_last_warning_is_kept_while_somebody_listens() -> None:
    log = logging.getLogger("sagelink.test")
    with LastWarning() as warnings:
        assert warnings.last is None
        log.warning("first")
        log.error("second\x1b")
        log.info("third")
    log.warning("fourth")
    assert warnings.last is not None
    assert warnings.last.line == r"second\x1b"


def test_a_formatter_keeps_its_format() -> None:
    record = logging.LogRecord("a", logging.ERROR, "", 0, "b\n%d", (1,), None)
    assert OneLineFormatter("%(levelname)s %(message)s").format(record) == r"ERROR b\n1"
