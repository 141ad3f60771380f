"""The second half of `sagelink demo`: teaches four unseen drawn classes from ten pictures each, and runs with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table

from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.monitor.terminal.terminal import SafeConsole
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.files.private_files import make_private_folder
from sagelink.pipeline.types import Verdict
from sagelink.stages.sources.world import CLASSES, UNSEEN, render, sample_scene

_TAUGHT, _TESTED = 10, 20  # pictures of a class
_SIDE = 256  # pixels
_SIZES: list[int | None] = [500, 1000, 2000, None]
_UPLINK = "32kbit/s"


def show_own_classes(console: SafeConsole, pair: Pair, out: Path) -> None:
    """Prints the pair's answers to unseen classes before and after it was taught; `out`: pictures, head and runs."""
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.lab.teach.feature_cache import FeatureCache
    from sagelink.lab.teach.features import FeatureMaker
    from sagelink.lab.teach.pictures import find_pictures_to_teach
    from sagelink.lab.teach.teaching import teach
    from sagelink.models.heads.head import write_head

    taught, tested, head = out / "pictures", out / "held-out", out / "own.head"
    _draw(taught, _TAUGHT, seed=1)
    _draw(tested, _TESTED, seed=2)
    console.print(f"\nteaching {len(UNSEEN)} classes that the models have never seen, {_TAUGHT} pictures each ...")
    settings = load_config(None, {"models": "demo"})
    with ProgressBar(console) as bar:
        maker = FeatureMaker(pair, settings, FeatureCache(None))
        result = teach(find_pictures_to_teach([taught], None), pair, maker, _SIZES, 0, bar.show)
    write_head(result.head, head)
    before = _answers(tested, out / "before", pair, {})
    after = _answers(tested, out / "after", None, {"head": str(head)})
    table = Table(title=f"own classes: {_TESTED} other pictures each, {_UPLINK}", title_justify="left")
    for heading in ("class", "before: most frequent answers", "after: right"):
        table.add_column(heading, justify="right" if heading.endswith("right") else "left", no_wrap=True)
    for name in UNSEEN:
        common = ", ".join(f"{answer} {count}" for answer, count in before[name].most_common(2))
        table.add_row(name, common, f"{after[name][name] / max(after[name].total(), 1):.0%}")
    right, total = sum(after[name][name] for name in UNSEEN), sum(after[name].total() for name in UNSEEN)
    table.add_row("all", "", f"{right / max(total, 1):.1%}")
    console.print(table)
    console.print(f"your own pictures: sagelink teach FOLDER --out site.head; pictures and head of this demo in {out}")


def _draw(folder: Path, per_class: int, seed: int) -> None:
    for number, name in enumerate(UNSEEN):
        make_private_folder(folder / name)
        for index in range(per_class):
            rng = np.random.default_rng([seed, number, index])
            pixels = render(sample_scene(rng, len(CLASSES) + number), _SIDE, _SIDE, 0.0, rng)
            Image.fromarray(pixels).save(folder / name / f"{index}_1.png")


def _answers(folder: Path, out: Path, pair: Pair | None, settings: dict[str, object]) -> dict[str, Counter[str]]:
    """By class: how often each name was the verdict."""
    given = {"models": "demo", "capture.source": str(folder), "capture.image_fps": 5, "budget.uplink": _UPLINK}
    run = prepare(load_config(None, {**given, **settings, "output.out": str(out)}), pair)
    counts: dict[str, Counter[str]] = {name: Counter() for name in UNSEEN}
    labels = run.parts.models.edge.labels

    def count(verdict: Verdict) -> None:
        counts[Path(verdict.frame.name or "").parent.name][str(verdict.label(labels))] += 1

    run.run(watch=count)
    return counts
