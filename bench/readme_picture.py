"""Draws docs/demo.png, the picture of the README: `python -m bench.readme_picture`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sagelink.app.edge.run import prepare
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.types import Verdict
from sagelink.stages.sinks.annotate import Painter

SHOWN = 4


def main() -> None:
    settings = {"capture.source": "synthetic:400,seed=5,hold=3", "models": "demo", "budget.uplink": "64kbit/s"}
    config = load_config(None, settings)
    pair = Pair.load(config)
    verdicts: list[Verdict] = []
    run = prepare(config, pair)
    run.run(verdicts.append)
    # Frames whose edge answer the server corrected show the use of the bits: one per class, fewest units first.
    sent = [verdict for verdict in verdicts if verdict.server and verdict.answer and verdict.edge]
    corrected = [v for v in sent if v.answer.class_id == v.frame.truth != v.edge.class_id]
    by_class = {v.frame.truth: v for v in sorted(corrected, key=lambda v: -len(v.units))}
    painter = Painter(pair.edge.labels, pair.server.grid, config.capture.resize)
    chosen = sorted(by_class.values(), key=lambda v: len(v.units))[:SHOWN]
    panels = [painter.draw(verdict) for verdict in chosen]
    gap = np.full((panels[0].shape[0], 8, 3), 255, np.uint8)
    row = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    Image.fromarray(row).save(Path(__file__).parents[1] / "docs" / "demo.png", optimize=True)


if __name__ == "__main__":
    main()
