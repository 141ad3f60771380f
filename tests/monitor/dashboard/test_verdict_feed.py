"""The ring of verdicts that viewers read, and the pictures that are made from it."""

from __future__ import annotations

import base64
import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sagelink.models.unit_grid import UnitGrid
from sagelink.monitor.dashboard.verdict_feed import FeedUpdate, VerdictFeed
from sagelink.monitor.evidence_png import evidence_png, pixels_of
from sagelink.monitor.previews import heat, live_picture
from sagelink.pipeline.types import Drop, EdgeOnly, Sent, Verdict
from sagelink.stages.fuse import Fuse
from sagelink.transport.codecs import Canvas
from sagelink.transport.patch_embedding import Embedding
from tests.fakes import CANVAS, PATCH, SIDE, make_evidence, make_frame, make_scored

LABELS = ("disc", "ring", "star", "fish", "key")
FUSE = Fuse(False, {0.0: 0.0, 1.0: 1.0}, SIDE**2)


def verdict_of(seq: int, sent: bool = True) -> Verdict:
    if not sent:
        return FUSE.decide(EdgeOnly(make_scored(seq, seq / 5), Drop.GATE))
    evidence = make_evidence(seq, seq / 5)
    return FUSE.decide(EdgeOnly(Sent(evidence, seq / 5, evidence.wire_bits, 0, None), Drop.LATE))


def numbers(update: FeedUpdate) -> list[int]:
    return [json.loads(event)["n"] for event in update.events]


@pytest.fixture
def feed() -> VerdictFeed:
    feed = VerdictFeed(LABELS, live=False, max_events=8)
    for seq in range(20):
        feed.write(verdict_of(seq))
    return feed


def test_a_viewer_continues_at_its_number(feed):
    first = feed.since(-3, 100)
    assert (numbers(first), first.next, first.missed) == ([17, 18, 19], 20, 0)
    assert feed.since(first.next, 100).events == []
    feed.write(verdict_of(20))
    assert numbers(feed.since(first.next, 100)) == [20]


def test_a_slow_viewer_misses_verdicts_that_left_the_ring(feed):
    update = feed.since(5, 4)
    assert (numbers(update), update.next, update.missed) == ([12, 13, 14, 15], 16, 7)
    assert numbers(feed.since(update.next, 4)) == [16, 17, 18, 19]


def test_a_new_viewer_gets_at_most_the_whole_ring(feed):
    update = feed.since(-600, 600)
    assert (numbers(update), update.missed) == (list(range(12, 20)), 0)


def test_details_are_bounded_by_size():
    feed = VerdictFeed(LABELS, live=False, max_bytes=3 * (SIDE * PATCH) ** 2 * 3)
    for seq in range(20):
        feed.write(verdict_of(seq, sent=False))
    stored = [number for number in range(20) if feed.details(number)]
    assert stored == [17, 18, 19]
    assert feed.details(19).message is None
    assert len(feed.since(-100, 100).events) == 20


def test_a_frame_that_was_never_scored_is_in_the_feed():
    feed = VerdictFeed(LABELS, live=False)
    feed.write(FUSE.decide(EdgeOnly(make_frame(), Drop.SUPERSEDED)))
    event = json.loads(feed.details(0).event)
    assert (event["label"], event["asked"], event["drop"]) == (None, False, "superseded")
    assert feed.details(0).picture is None


def test_times_never_decrease():
    feed = VerdictFeed(LABELS, live=False)
    for seq in (5, 2, 7):
        feed.write(verdict_of(seq))
    assert [json.loads(event)["t"] for event in feed.since(0, 9).events] == [1.0, 1.0, 1.4]


def test_the_evidence_picture_is_what_the_server_decodes():
    evidence = make_evidence(seq=3, units=(1, 5, 6))
    pixels = np.array(Image.open(io.BytesIO(evidence_png(evidence.message, CANVAS))))
    picture = evidence.selected.metered.scored.picture
    sent = np.zeros((SIDE, SIDE), bool)
    sent.flat[[1, 5, 6]] = True
    sent = sent.repeat(PATCH, 0).repeat(PATCH, 1)
    assert (pixels[..., 3] == 255 * sent).all()
    assert (pixels[sent][:, :3] == picture[sent]).all()


def test_a_live_picture_has_the_box_of_its_units():
    verdict = verdict_of(1)
    data = live_picture(41, verdict, UnitGrid(SIDE * PATCH, PATCH, "bicubic", 1.0), "squash")
    (length,) = struct.unpack_from("!I", data)
    header = json.loads(data[4 : 4 + length])
    assert (header["n"], header["units"], header["box"], header["side"]) == (41, [1, 5, 6], [0, 0, 1, 1], SIDE)
    assert Image.open(io.BytesIO(data[4 + length :])).size == (SIDE * PATCH, SIDE * PATCH)
    values = np.frombuffer(base64.b64decode(header["importance"]), np.uint8)
    assert (values.argmax(), values.max()) == (verdict.scored.importance.argmax(), 255)


def test_a_live_picture_has_the_box_of_a_sent_crop():
    verdict = verdict_of(1)
    cropped = replace(verdict, crop=(0.25, 0.5, 0.75, 1.0))
    data = live_picture(41, cropped, UnitGrid(SIDE * PATCH, PATCH, "bicubic", 1.0), "squash")
    (length,) = struct.unpack_from("!I", data)
    header = json.loads(data[4 : 4 + length])
    assert header["box"] == [0.25, 0.5, 0.75, 1.0]
    assert header["edge_box"] == [0, 0, 1, 1]  # the box of the importance


def test_no_importance_is_no_heat():
    assert set(base64.b64decode(heat(np.zeros(4, np.float32)))) == {0}


@pytest.mark.parametrize("width_share", [1.0, 0.5, 0.25])
def test_tokens_become_likely_pixels(width_share):
    rng = np.random.default_rng(0)
    inputs, side = 8 * 8 * 3, 8
    width = int(width_share * inputs)
    embedding = Embedding(rng.standard_normal((inputs, width)).astype(np.float32), np.ones(width, np.float32))
    slopes = np.add.outer(np.arange(side) * 9, np.arange(side) * 14)[..., None] + [20, 40, 90]
    patches = np.stack([slopes, slopes[::-1], np.full((side, side, 3), 180)]).astype(np.uint8)
    shown = pixels_of(embedding.tokens(patches), Canvas(SIDE, side, embedding))
    assert np.abs(shown.astype(int) - patches).mean() < 5
