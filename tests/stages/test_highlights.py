"""Which frames a run saves as pictures, and that the folder holds exactly those."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.types import Drop, EdgeOnly, Sent
from sagelink.stages.fuse import Fuse
from sagelink.stages.sinks.annotate import Painter
from sagelink.stages.sinks.highlights import Highlights
from tests.fakes import PATCH, SIDE, make_evidence, make_metered, make_scored

FUSE = Fuse(False, {0.0: 0.0, 1.0: 1.0}, SIDE**2)


def verdict_of(seq: int, prob: float = 0.9, bits: int = 0, stream_s: float | None = None):
    at = 10.0 * seq if stream_s is None else stream_s
    rest = (1 - prob) / 4
    scored = make_scored(seq, at, probs=(prob, rest, rest, rest, rest))
    if not bits:
        return FUSE.decide(EdgeOnly(scored, Drop.GATE))
    evidence = make_evidence(seq, at)
    selected = replace(evidence.selected, metered=make_metered(scored))
    evidence = replace(evidence, wire_bits=bits, selected=selected)
    return FUSE.decide(EdgeOnly(Sent(evidence, at, bits, 0, None), Drop.LATE))


@pytest.fixture
def painter() -> Painter:
    grid = UnitGrid(SIDE * PATCH, PATCH, "bicubic", 1.0)
    return Painter(("a", "b", "c", "d", "e"), grid, "squash")


def saved(folder: Path) -> set[int]:
    return {int(path.stem.rsplit("-", 1)[1]) for path in folder.glob("*.jpg")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def test_the_most_expensive_and_the_least_certain_are_saved(folder, painter):
    sink = Highlights(folder, painter, keep=2)
    for seq, (prob, bits) in enumerate([(0.9, 10), (0.3, 0), (0.95, 30), (0.25, 0), (0.9, 20), (0.8, 0), (0.2, 0)]):
        sink.write(verdict_of(seq, prob, bits))
    assert saved(folder) == {2, 4, 3, 6}


def test_sent_units_are_outlined(painter):
    sent, black = verdict_of(0, bits=9), np.zeros((SIDE * PATCH, SIDE * PATCH, 3), np.uint8)
    assert sent.units.tolist() == [1, 5, 6]
    drawn = painter.outlined(replace(sent, frame=replace(sent.frame, pixels=black)), min_side=1)
    line = drawn.any(-1)
    cells = line.reshape(SIDE, PATCH, SIDE, PATCH).swapaxes(1, 2).reshape(SIDE**2, PATCH, PATCH)
    assert {unit for unit, cell in enumerate(cells) if cell.any()} == {1, 5, 6}
    assert cells[1, 0, 1:-1].all()  # above the upper unit
    assert not cells[1, -1, 1:-1].any()  # between it and the one below


def test_similar_neighbours_are_saved_once(folder, painter):
    sink = Highlights(folder, painter, keep=3)
    for seq, (stream_s, prob) in enumerate([(0.0, 0.4), (0.2, 0.3), (0.4, 0.35), (5.0, 0.5)]):
        sink.write(verdict_of(seq, prob, stream_s=stream_s))
    assert saved(folder) == {1, 3}


def test_a_picture_is_written_and_the_folder_must_be_new(folder, painter):
    Highlights(folder, painter, keep=2).write(verdict_of(1, bits=99))
    assert cv2.imread(str(folder / "camera-000001.jpg")).shape[0] == 360
    with pytest.raises(FileExistsError):
        Highlights(folder, painter, keep=2)
    assert saved(folder) == {1}


def test_units_of_a_crop_are_outlined_inside_it(painter):
    sent, black = verdict_of(0, bits=9), np.zeros((2 * SIDE * PATCH, 2 * SIDE * PATCH, 3), np.uint8)
    cropped = replace(sent, crop=(0.5, 0.5, 1.0, 1.0), frame=replace(sent.frame, pixels=black))
    line = painter.outlined(cropped, min_side=1).any(-1)
    half = SIDE * PATCH
    assert line[half:, half:].any()
    assert not line[:half].any()
    assert not line[:, :half].any()
