"""A server that answers nothing is only probed, with growing pauses; an answer ends this."""

from __future__ import annotations

import itertools

from sagelink.stages.server_watch import ServerWatch


def test_only_probes_go_to_a_silent_server():
    watch, sent = ServerWatch(jitter=lambda: 0.0), []
    for now_s in range(24 * 3600):  # a message a second, each of them late
        if watch.refusal(now_s) is None:
            watch.sent(now_s)
            watch.failed(now_s + 1, "late")
            sent.append(now_s)
    assert sent[:8] == list(range(8))
    assert "8 messages or more were late" in watch.refusal(sent[-1] + 1.5)
    assert 285 < len(sent) < 310  # one in five minutes
    pauses = [after - before for before, after in itertools.pairwise(sent[8:])]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 300


def test_an_answer_ends_it():
    watch = ServerWatch(jitter=lambda: 0.0)
    for now_s in range(8):
        watch.failed(now_s, "refused")
    assert watch.refusal(8.0) is not None
    assert watch.refusal(9.5) is None  # the probe
    watch.reset()
    assert watch.refusal(8.0) is None


def test_a_few_late_messages_change_nothing():
    watch = ServerWatch()
    for now_s in range(100):
        watch.failed(now_s, "late")
        assert watch.refusal(now_s) is None
        if now_s % 7 == 6:
            watch.reset()
