"""The report of real runs: its numbers are those of the files."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.monitor.report.events import report_events
from sagelink.monitor.report.plots import plots
from sagelink.monitor.report.report import write_report
from sagelink.monitor.report.results_reader import Results
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import SagelinkError, UsageError
from tests.monitor.report.test_results_reader import make_line, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two short runs of the demo pair under different budgets."""
    pair = Pair.load(load_config(None, {"models": "demo"}))
    folders = []
    for rate in ("32kbit/s", "unlimited"):
        folder = tmp_path_factory.mktemp("runs") / rate.replace("/", "")
        settings = {"models": "demo", "capture.source": "synthetic:30", "select.units": 32, "output.out": str(folder)}
        prepare(load_config(None, settings | {"budget.uplink": rate}), pair).run()
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def page(runs) -> Path:
    """The report of the first run."""
    return write_report(runs[:1])


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_one_run(runs, page):
    assert page == runs[0] / "report.html"
    parsed = _Page(page.read_text())
    summary = json.loads((runs[0] / "summary.json").read_text())
    assert f"{summary['peak_window_bits']:,} bits" in parsed.text
    assert "32 kbit/s over 1 s" in parsed.text
    assert f"{summary['accuracy']['verdict']:.1%}" in parsed.text
    images = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert images
    assert all(source.startswith("data:image/jpeg;base64,") for source in images)
    assert sum(tag == "svg" for tag, _ in parsed.tags) == 4
    for name in ("bits", "verdicts", "latency", "accuracy"):
        with Image.open(runs[0] / f"report-{name}.png") as plot:
            assert plot.width > 1000


def test_the_page_is_self_contained(page):
    text = page.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", re.sub(r"<svg.*?</svg>", "", text, flags=re.S))
    assert "url(http" not in text
    assert "<script" not in text


def test_two_runs_side_by_side(runs, tmp_path):
    page = write_report(runs, tmp_path / "sub" / "both.html")
    parsed = _Page(page.read_text())
    assert "32kbits" in parsed.text
    assert "unlimited over 1 s" in parsed.text
    assert (tmp_path / "sub" / "both-bits.png").is_file()


@pytest.mark.parametrize("order", [1, -1])
def test_runs_of_different_lengths_share_the_longer_axis(tmp_path, order):
    lengths = {"short": 3, "long": 30}
    folders = [write_run(tmp_path / name, [make_line(seq) for seq in range(n)]) for name, n in lengths.items()]
    figure = plots([Results.read(folder) for folder in folders[::order]])["bits"]
    last = Results.read(folders[1]).times()[-1]
    assert [ax.get_xlim() for ax in figure.axes] == [(0, pytest.approx(last, abs=0.5))] * 2


def test_the_report_names_lost_units_and_revised_verdicts_and_escapes_names(tmp_path):
    pictures = tmp_path / "run" / "pictures"
    pictures.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(pictures / "camera-000001.jpg")
    lines = [
        make_line(0, units=60, lost_units=12),
        make_line(1, units=60, lost_units=0, revised_from={"class_id": 2, "label": "comet", "prob": 0.4}),
        make_line(2, camera="<script>alert(1)</script>"),
    ]
    page = write_report([write_run(tmp_path / "run", lines)]).read_text()
    assert "<script" not in page
    text = _Page(page).text
    assert "1 server answers do not include 10.0% of all units sent" in text
    assert "1 (33%): a later server answer changed" in text
    assert "was comet" in text


def test_a_run_without_summary_or_truth_has_a_report(tmp_path):
    page = write_report([write_run(tmp_path, [make_line(0), make_line(1)])])
    assert "This run saved no pictures" in page.read_text()
    assert "Parts lost" not in page.read_text()
    assert not (tmp_path / "report-accuracy.png").exists()


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    folder = write_run(tmp_path / "run", [make_line(0)])
    (tmp_path / "file").touch()
    with pytest.raises(SagelinkError, match="is not a folder; accepted: a folder"):
        write_report([folder], tmp_path / "file" / "page.html")


def test_the_events_of_a_run(runs, page):
    parsed = _Page(page.read_text())
    rows = [json.loads(line) for line in (runs[0] / "events.jsonl").read_text().splitlines()]
    happened = {row["id"]: row for row in rows if row["action"] != "withdraw"}
    assert happened
    assert f"{len(happened)} events" in parsed.text
    assert all(row["label"] in parsed.text for row in happened.values())


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"id": "a"}'])
def test_a_line_that_is_no_event_is_named(line, tmp_path):
    (tmp_path / "events.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match=r"events\.jsonl:1: "):
        report_events(tmp_path)
