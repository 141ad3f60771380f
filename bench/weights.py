"""Accuracy of the fused answer by weight and by units received: what the default `fuse.weights` are read from.

    python -m bench.weights [--images DIR --labels CSV] [--set stage.key=value ...]

Without images, scenes of the synthetic world that the demo pair was not trained on. The weight of a share of units is
the largest for which the fused answer is not below its best by more than noise, and not below the edge alone.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.pair import Pair
from pipeline.config_file import load_config, parse_assignments
from pipeline.types import Frame, Pixels, Reply
from server.classify import Classifier
from server.receive import Received
from stages.fuse import answer_of, fuse, spread
from stages.score import Score
from stages.selectors import selector_by_name
from stages.sources.images import read_image
from stages.sources.synthetic import SyntheticSource
from transport.codecs import cut_units

UNITS = (8, 16, 24, 32, 48, 64, 96, 128, 196)
WEIGHTS = (0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3)


def labelled(images: Path | None, labels: Path | None) -> Iterator[tuple[Pixels, int]]:
    if images is None or labels is None:
        for shot in SyntheticSource(500, seed=11, hold=1):
            yield shot.pixels, shot.truth
        return
    with labels.open() as file:
        for row in list(csv.DictReader(file))[::2]:  # the other half is for reporting
            yield read_image(images / row["file"]), int(row["label"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    arguments = parser.parse_args()
    config = load_config(
        None, {"models": "deit" if arguments.images else "demo"} | parse_assignments(arguments.assignments)
    )
    pair = Pair.load(config)
    scorer = Score(pair.edge, pair.server.grid, config.select.importance, config.capture.resize)
    classifier, select = Classifier(pair.server), selector_by_name(config.select.selector)
    truth, edge = [], []
    server = {count: [] for count in UNITS}
    for seq, (pixels, label) in enumerate(labelled(arguments.images, arguments.labels)):
        (scored,) = scorer([Frame(seq, "bench", 0, 0.0, pixels, 0.0)])
        truth.append(label)
        edge.append(scored.answer)
        for count in UNITS:
            units = np.sort(select(scored.importance, scored.embeddings, count, seed=seq))
            received = Received(seq, units, cut_units(scored.picture, units, pair.server.grid.patch_size))
            ((classes, log_probs),) = classifier([received])
            reply = Reply(seq, None, classes, log_probs, count, 0.0)
            server[count].append(answer_of(spread(reply, len(scored.answer.log_probs))))

    def accuracy(answers: list) -> float:
        return float(np.mean([answer.class_id == label for answer, label in zip(answers, truth, strict=True)]))

    print(f"{len(truth)} pictures, edge alone {accuracy(edge):.3f}; columns: server alone, then fused by weight")
    print("units  server  " + "  ".join(f"{weight:>5g}" for weight in WEIGHTS))
    for count in UNITS:
        fused = [accuracy([fuse(e, s, w) for e, s in zip(edge, server[count], strict=True)]) for w in WEIGHTS]
        print(f"{count:>5}   {accuracy(server[count]):.3f}  " + "  ".join(f"{share:.3f}" for share in fused))


if __name__ == "__main__":
    main()
