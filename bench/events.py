"""Measures events on a labelled clip: missed and false events, and how late an event begins.

    python -m bench.events CLIP.mp4 [--uplink 16kbit/s] [--share 0.55] --work FOLDER [--set KEY=VALUE ...]

CLIP.labels.csv lies beside the clip (`start_s,end_s,label`). A head is taught on the intervals in the first `--share`
of the clip; then the whole clip is run with the default rule, and the intervals that begin after that part are
compared with the events. An interval without an event of its label that overlaps it is missed. An event is false if it
overlaps intervals, but none of its label. The delay is the stream time from the beginning of the interval to the first
frame of the event, so it does not include the debounce. Further events of the label in one interval are repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--uplink", default="16kbit/s")
    parser.add_argument("--share", type=float, default=0.55)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    with arguments.clip.with_suffix(".labels.csv").open() as file:
        intervals = [(float(row["start_s"]), float(row["end_s"]), row["label"]) for row in csv.DictReader(file)]
    split_s = arguments.share * intervals[-1][1]
    work, settings = arguments.work, [f"--set={setting}" for setting in arguments.set]
    head, out = taught(arguments.clip, work, [each for each in intervals if each[1] <= split_s], settings), work / "run"
    command("run", arguments.clip, "--head", head, "--uplink", arguments.uplink, "--out", out, *settings)
    events = happened(out)
    print(json.dumps(compare([each for each in intervals if each[0] >= split_s], events, split_s), indent=2))


def command(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "sagelink.app.cli", *map(str, words)], check=True)


def taught(clip: Path, work: Path, intervals: list[tuple[float, float, str]], settings: list[str]) -> Path:
    """Teaches a head on these intervals of the clip."""
    work.mkdir(parents=True, exist_ok=True)
    lesson, head = work / clip.name, work / "taught.head"
    if not lesson.exists():
        lesson.symlink_to(clip.resolve())
    lines = [f"{start_s},{end_s},{label}" for start_s, end_s, label in intervals]
    lesson.with_suffix(".labels.csv").write_text("\n".join(["start_s,end_s,label", *lines, ""]))
    if not head.exists():
        command("teach", lesson, "--out", head, *settings)
    return head


def happened(out: Path) -> list[dict[str, Any]]:
    """The last action of each event that was not withdrawn."""
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    return [event for event in {line["id"]: line for line in lines}.values() if event["action"] != "withdraw"]


def compare(
    intervals: list[tuple[float, float, str]], events: list[dict[str, Any]], from_s: float
) -> dict[str, object]:
    """The figures of the part of a clip that begins at `from_s`."""
    missed, delays_s, false, repeated = [], [], [], []
    for start_s, end_s, label in intervals:
        found = [each for each in events if each["label"] == label and overlaps(each, start_s, end_s)]
        if found:
            delays_s.append(max(0.0, found[0]["start_s"] - start_s))
            repeated += [[start_s, label]] * (len(found) - 1)
        else:
            missed.append([start_s, label])
    for event in events:
        shown = [label for start_s, end_s, label in intervals if overlaps(event, start_s, end_s)]
        if shown and event["start_s"] >= from_s and event["label"] not in shown:
            false.append([event["start_s"], event["end_s"], event["label"]])
    return {
        "intervals": len(intervals),
        "missed": missed,
        "false": false,
        "repeated": repeated,
        "longest_delay_s": max(delays_s, default=None),
        "delays_s": delays_s,
    }


def overlaps(event: dict[str, Any], start_s: float, end_s: float) -> bool:
    return bool(event["start_s"] < end_s and event["end_s"] > start_s)


if __name__ == "__main__":
    main()
