"""Reading a run folder, and the rolling window that is drawn from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagelink.monitor.report.results_reader import Results, rolling
from sagelink.pipeline.errors import UsageError


def make_line(seq: int, **values: object) -> dict[str, object]:
    edge = {"class_id": 1, "label": "a", "prob": 0.5}
    line = {
        **{"seq": seq, "camera": "camera", "name": None, "stream_s": seq / 5, "sent_s": None, "label": "a"},
        **{"class_id": 1, "prob": 0.5, "origin": "edge", "drop": "gate", "units": 0, "wire_bits": 0},
        **{"allowance_bits": 1000, "window_bits": 0, "budget_bits": 1000, "edge": edge, "server": None, "truth": None},
        "latency_ms": {"capture": 1.0, "score": 2.0, "total": 5.0 + seq},
    }
    return line | values


def write_run(folder: Path, lines: list[dict[str, object]], summary: dict[str, object] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 1000)), min_size=1, max_size=30), st.sampled_from([0.5, 1.0])
)
def test_the_rolling_window_is_the_sum_of_what_lies_in_it(charges, window_s):
    times = np.array(sorted(tick / 4 for tick, _ in charges))  # quarters: exact in floating point
    bits = np.array([bits for _, bits in charges], float)
    steps, level = rolling(times, bits, window_s)
    for t in {*steps, *(steps + 0.125)}:
        drawn = level[np.searchsorted(steps, t, side="right") - 1]
        assert drawn == bits[(times > t - window_s) & (times <= t)].sum()


def test_a_run_is_read_and_counted(tmp_path):
    server = {"class_id": 2, "label": "b", "prob": 0.9}
    answered = {"origin": "fused", "drop": None, "server": server, "class_id": 2}
    lines = [
        make_line(0, truth=1),
        make_line(1, truth=2, sent_s=0.2, wire_bits=600, units=3, **answered),
        make_line(2, truth=2, window_bits=None, budget_bits=None, drop="superseded", edge=None, class_id=None),
        make_line(3, budget_bits=500),
    ]
    run = Results.read(write_run(tmp_path / "run", lines))
    assert run.summary is None
    assert run.window_s is None
    assert run.name == "run"
    assert [values.tolist() for values in run.charges()] == [[0.2], [600.0]]
    assert run.budget().tolist() == [1000, 1000, 1000, 500]
    assert run.counts.drops == {"gate": 2, "superseded": 1}
    assert run.counts.accuracy() == {"verdict": 2 / 3, "edge": 1 / 3}
    assert (run.counts.agreeing, run.counts.compared) == (0, 1)
    assert run.latencies("total").tolist() == [5, 6, 7, 8]


def test_an_incomplete_last_line_is_ignored(tmp_path):
    folder = write_run(tmp_path, [make_line(0), make_line(1)])
    path = folder / "results.jsonl"
    path.write_text(path.read_text()[:-20])
    assert len(Results.read(folder).lines) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "results.jsonl': No such file or directory; accepted: the folder"),
        ("", "holds no frames yet"),
        ('{"seq": 0, "stream_s": 0.0, "wire_bits": 0, "latency_ms": {}}\n', "jsonl:1: not a line of results.jsonl"),
        ('{"held": null}\n', "the key 'held' is named 'server_seq' since version 0.2"),
        ("[]\n", "results.jsonl:1: not a line of results.jsonl"),
        ("nonsense\n", "results.jsonl:1: not JSON"),
    ],
)
def test_a_folder_without_a_run_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "results.jsonl").write_text(text)
    with pytest.raises(UsageError, match="(?s).*" + message.replace("(", r"\(")):
        Results.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("{}", "is not the summary of a run"), ("[]", "is not the summary of a run")],
)
def test_a_broken_summary_is_refused(tmp_path, text, message):
    write_run(tmp_path, [make_line(0)])
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UsageError, match=f"summary.json' {message}"):
        Results.read(tmp_path)


_OTHER_KINDS = ("x", None, [], {}, True, 1)


@pytest.mark.parametrize("key", [*make_line(0), "scored", "lost_units", "revised_from"])
@pytest.mark.parametrize("value", _OTHER_KINDS, ids=repr)
def test_a_value_of_another_kind_is_refused_or_read(tmp_path, key, value):
    write_run(tmp_path, [make_line(0), make_line(1, sent_s=0.2), make_line(2) | {"sent_s": 0.3, key: value}])
    try:
        run = Results.read(tmp_path)
    except UsageError as error:
        assert "results.jsonl:3: " in str(error)  # noqa: PT017
        return
    assert len(run.charges()[0]) == len(run.times()) - 1 - (key == "sent_s" and value is None)
    assert len(run.budget()) == len(run.latencies("total")) == len(run.times()) == 3
    assert run.frames_by_camera().total() == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wire_bits": "x"}, r"results.jsonl:1: wire_bits: 'x'; accepted: a number$"),
        ({"stream_s": True}, r"results.jsonl:1: stream_s: True; accepted: a number$"),
        ({"edge": [1]}, r"results.jsonl:1: edge: \[1\]; accepted: an object or null$"),
        ({"edge": {"class_id": "a"}}, r"results.jsonl:1: edge: class_id: 'a'; accepted: a number or null$"),
        ({"latency_ms": {"total": "x"}}, r"results.jsonl:1: latency_ms: total: 'x'; accepted: a number or null$"),
    ],
)
def test_a_refused_value_is_named_with_its_place(tmp_path, values, message):
    with pytest.raises(UsageError, match=message):
        Results.read(write_run(tmp_path, [make_line(0, **values)]))


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("window_s", "x", "a number"),
        ("window_s", None, "a number"),
        ("peak_window_bits", [], "a number"),
        ("budget_bits", {}, "a number or null"),
        ("models", "demo", "an object"),
        ("models", {}, "an object with edge and server"),
        ("interrupted", 1, "true or false"),
    ],
)
def test_a_summary_with_a_value_of_another_kind_is_refused(tmp_path, key, value, accepted):
    summary = {"window_s": 1.0, "budget_bits": None, "peak_window_bits": 0, "source": "0", "interrupted": False}
    summary |= {"models": {"edge": "a", "server": "b"}, key: value}
    with pytest.raises(UsageError, match=f"summary.json: {key}: .*; accepted: {accepted}$"):
        Results.read(write_run(tmp_path, [make_line(0)], summary))
