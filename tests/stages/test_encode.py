"""The encode stage: the best message within the allowance."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sagelink.pipeline.types import WHOLE, Box, Drop, EdgeOnly, Evidence, Scored
from sagelink.stages.encode import Encode
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.frontier import RateQualityCurve
from sagelink.stages.scene_fusion import SceneConfig
from sagelink.stages.scene_tracker import SceneTracker
from sagelink.stages.zoom import ZoomCrop
from sagelink.transport import codecs
from sagelink.transport.codecs import CodecFailed, cut_units
from sagelink.transport.codecs.raw import RawZstd
from sagelink.transport.evidence_message import decode_evidence
from tests.fakes import CANVAS, PATCH, SIDE, FakeLink, make_metered, make_scored, make_selected, raw_point

ORDER = [5, 1, 14, 0, 9, 3, 12, 7, 2, 11, 8, 15, 6, 10, 4, 13]


RAW_BYTES = np.array([65 + 48 * count for count in range(1, 17)], float)  # about, for units of noise


def raw_curve(min_units: int = 1, most: int = 16) -> RateQualityCurve:
    """Raw units of noise: each unit costs the same and adds the same agreement."""
    share = np.arange(1, 17) / 16
    return RateQualityCurve(raw_point(0), "units", np.arange(1.0, 17), RAW_BYTES, share, share).limited(min_units, most)


def make_encode(min_units: int = 2, max_message: int = 10**6, framing_bytes: int = 0) -> Encode:
    link = FakeLink(framing_bytes=framing_bytes)
    encoder = Encoder([raw_curve(min(min_units, 16))], CANVAS)
    return Encode(lambda taught: encoder, link.wire_bits, max_message)


def selected_of(allowance_bits: int | None, order=ORDER, seq: int = 0, window_bits: int = 0):
    return make_selected(make_metered(make_scored(seq), allowance_bits, window_bits), order)


async def message_bytes(count: int) -> int:
    """Bytes of the message with the first `count` units of ORDER."""
    evidence = await make_encode(min_units=1).process(selected_of(None, ORDER[:count]))
    assert isinstance(evidence, Evidence)
    return len(evidence.message)


CROP = (0.1, 0.1, 0.8, 0.8)


@pytest.mark.parametrize(
    ("edge_weight", "most", "units", "crop"), [(1.0, 16, 12, CROP), (0.0, 16, 16, WHOLE), (0.0, 12, 12, CROP)]
)
async def test_where_only_the_server_is_believed_the_whole_picture_is_sent_if_it_can_be(
    edge_weight: float, most: int, units: int, crop: Box
) -> None:
    scored, drawn = make_scored(), np.full((SIDE * PATCH, SIDE * PATCH, 3), 77, np.uint8)
    scored = replace(scored, edge_view=replace(scored.edge_view, crop=CROP))
    selected = make_selected(make_metered(scored, None), ORDER)
    tracker = SceneTracker(SceneConfig(), lambda evidence, units: 1.0)
    provisional = tracker.track(selected.metered.scored)
    estimate = replace(provisional.estimate, edge_weight=edge_weight)
    metered = replace(selected.metered, provisional=replace(provisional, estimate=estimate))
    encoder = Encoder([raw_curve(most=most)], CANVAS, slack=0.25)
    encode = Encode(lambda taught: encoder, FakeLink().wire_bits, 10**6, draw=lambda frame, box: drawn)
    evidence = await encode.process(replace(selected, metered=metered))
    assert isinstance(evidence, Evidence)
    assert (len(evidence.units), evidence.crop) == (units, crop)
    message = decode_evidence(evidence.message)
    pixels = RawZstd().decode(message.payload, message.units, CANVAS)
    assert bool((pixels == 77).all()) == (crop == WHOLE)


async def test_the_search_begins_where_the_last_frame_of_the_camera_ended(monkeypatch):
    """The pictures compress to far less than the curve of noise says."""
    coded: list[int] = []

    def encode_units(self: Encoder, seq: int, *arguments: object) -> bytes:
        coded.append(seq)
        return original(self, seq, *arguments)  # type: ignore[arg-type]

    original = Encoder.encode_units
    monkeypatch.setattr(Encoder, "encode_units", encode_units)
    plain = np.full((SIDE * PATCH, SIDE * PATCH, 3), 77, np.uint8)
    encode = make_encode()
    for seq, camera in enumerate(("door", "door", "yard")):
        scored = make_scored(seq)
        frame = replace(scored.frame, camera=camera)
        metered = make_metered(replace(scored, frame=frame, picture=plain), 3200)
        evidence = await encode.process(make_selected(metered, ORDER))
        assert isinstance(evidence, Evidence)
        assert len(evidence.units) == 16
    assert [coded.count(seq) for seq in range(3)] == [2, 1, 2]


async def test_without_a_limit_all_units_travel():
    selected = selected_of(None, seq=77)
    evidence = await make_encode(framing_bytes=40).process(selected)
    assert isinstance(evidence, Evidence)
    assert evidence.selected is selected
    assert evidence.units.tolist() == list(range(16))
    assert evidence.wire_bits == 8 * (len(evidence.message) + 40)
    message = decode_evidence(evidence.message)
    assert (message.seq, message.side, message.patch_size, message.codec) == (77, SIDE, PATCH, RawZstd.number)
    assert message.units.tolist() == evidence.units.tolist()
    pixels = RawZstd().decode(message.payload, message.units, CANVAS)
    assert (pixels[3] == selected.metered.scored.picture[:PATCH, 3 * PATCH :]).all()


@settings(deadline=None, max_examples=60)
@given(allowance_bits=st.integers(0, 8000), framing_bytes=st.sampled_from([0, 60]), min_units=st.integers(1, 20))
@example(allowance_bits=1056, framing_bytes=0, min_units=1)
async def test_the_bits_never_exceed_the_allowance(allowance_bits, framing_bytes, min_units):
    outcome = await make_encode(min_units, framing_bytes=framing_bytes).process(selected_of(allowance_bits))
    affordable = [k for k in range(1, 17) if 8 * (await message_bytes(k) + framing_bytes) <= allowance_bits]
    max_units = max(affordable, default=0)
    if max_units >= min(min_units, 16):
        assert isinstance(outcome, Evidence)
        assert outcome.wire_bits == 8 * (len(outcome.message) + framing_bytes) <= allowance_bits
        sent = len(outcome.units)
        assert outcome.units.tolist() == sorted(ORDER[:sent])
        assert max_units - 1 <= sent <= max_units  # after a message that was too long the search is cautious
        assert decode_evidence(outcome.message).units.tolist() == outcome.units.tolist()
    else:
        assert isinstance(outcome, EdgeOnly)
        assert outcome.reason == Drop.BUDGET


async def test_the_message_fits_the_links_limit_of_the_moment(caplog):
    link = FakeLink()
    encoder = Encoder([raw_curve(2)], CANVAS)
    encode = Encode(lambda taught: encoder, link.wire_bits, 10**6, link_limit=link.max_message_bytes)
    for link.longest_bytes in (500, 300, 10**6):
        evidence = await encode.process(selected_of(None))
        assert isinstance(evidence, Evidence)
        assert link.longest_bytes - 100 < len(evidence.message) <= link.longest_bytes or len(evidence.units) == 16
    assert not caplog.text
    link.longest_bytes = 60
    assert (await encode.process(selected_of(None))).reason == Drop.BUDGET
    assert "link_max_message_bytes=60" in caplog.text
    assert "max_packet_size" in caplog.text


def zooming_encode(zoom_crop: Callable[[Scored], ZoomCrop | None]) -> Encode:
    """A crop has a higher agreement than the whole picture, and costs as much."""
    sixteen = np.array([16.0]), np.array([float(RAW_BYTES[15])])
    crop = RateQualityCurve(replace(raw_point(0), view=0.5), "units", *sixteen, np.array([1.0]), np.array([2.0]))
    whole = RateQualityCurve(raw_point(0), "units", *sixteen, np.array([0.9]), np.array([1.0]))
    encoder = Encoder([whole, crop], CANVAS)
    return Encode(lambda taught: encoder, FakeLink().wire_bits, 10**6, zoom_crop=zoom_crop)


async def test_a_crop_is_sent_where_its_agreement_is_higher():
    drawn = np.random.default_rng(9).integers(0, 256, (SIDE * PATCH, SIDE * PATCH, 3)).astype(np.uint8)
    importance = np.zeros(SIDE**2, np.float32)
    importance[-1] = 1
    encode = zooming_encode(lambda scored: ZoomCrop(scored.edge_view.crop, importance, lambda box: drawn))
    evidence = await encode.process(selected_of(None))
    assert isinstance(evidence, Evidence)
    assert (evidence.point.view, evidence.crop, evidence.weight) == (0.5, (0.5, 0.5, 1.0, 1.0), 2.0)
    message = decode_evidence(evidence.message)
    pixels = RawZstd().decode(message.payload, message.units, CANVAS)
    assert (pixels == cut_units(drawn, message.units, PATCH)).all()


async def test_where_no_crop_may_be_sent_the_scored_picture_is():
    selected = selected_of(None)
    evidence = await zooming_encode(lambda scored: None).process(selected)
    assert isinstance(evidence, Evidence)
    assert (evidence.point.view, evidence.crop, evidence.weight) == (1.0, (0.0, 0.0, 1.0, 1.0), 1.0)
    message = decode_evidence(evidence.message)
    pixels = RawZstd().decode(message.payload, message.units, CANVAS)
    assert (pixels == cut_units(selected.metered.scored.picture, message.units, PATCH)).all()


async def test_the_allowance_may_be_used_up_exactly():
    exact = 8 * await message_bytes(7)
    evidence = await make_encode().process(selected_of(exact))
    assert isinstance(evidence, Evidence)
    assert evidence.wire_bits == exact
    assert len(evidence.units) == 7
    one_less = await make_encode().process(selected_of(exact - 1))
    assert isinstance(one_less, Evidence)
    assert len(one_less.units) == 6


async def test_no_message_is_longer_than_max_message():
    largest = await message_bytes(5)
    evidence = await make_encode(max_message=largest).process(selected_of(None))
    assert isinstance(evidence, Evidence)
    assert len(evidence.message) == largest
    assert evidence.units.tolist() == sorted(ORDER[:5])


async def test_a_short_selection_may_have_less_than_min_units():
    evidence = await make_encode(min_units=16).process(selected_of(None, ORDER[:3]))
    assert isinstance(evidence, Evidence)
    assert evidence.units.tolist() == sorted(ORDER[:3])


def warnings_in(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_a_budget_that_never_suffices_is_logged_once(caplog):
    needed_bits = 8 * await message_bytes(4)
    encode = make_encode(min_units=4)
    assert needed_bits > 1000
    for seq in range(3):
        selected = selected_of(1000, seq=seq)
        assert await encode.process(selected) == EdgeOnly(selected, Drop.BUDGET)
    (warning,) = warnings_in(caplog)
    assert "limit_bits=1000" in warning
    assert "raise the rate, the window or the quota" in warning
    assert f"needed_bits={needed_bits}" in warning
    assert "lower select.min_units" in warning


async def test_a_partly_spent_window_causes_no_warning(caplog):
    outcome = await make_encode(min_units=4).process(selected_of(1000, window_bits=9000))
    assert isinstance(outcome, EdgeOnly)
    assert warnings_in(caplog) == []


async def test_too_small_a_max_message_causes_no_warning_about_the_budget(caplog):
    outcome = await make_encode(max_message=20).process(selected_of(None))
    assert isinstance(outcome, EdgeOnly)
    assert not any("raise the rate" in warning for warning in warnings_in(caplog))


@pytest.mark.parametrize("allowance_bits", [0, -1])
async def test_without_allowance_nothing_is_sent(allowance_bits):
    outcome = await make_encode(min_units=1).process(selected_of(allowance_bits))
    assert isinstance(outcome, EdgeOnly)
    assert outcome.reason == Drop.BUDGET


class BrokenCodec(RawZstd):
    """Its encoder fails on every picture."""

    number = 99

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, *_: object) -> bytes:
        self.calls += 1
        raise OSError("encoder error -2")


async def test_a_codec_that_fails_is_left_out_for_the_rest_of_the_run(monkeypatch, caplog):
    monkeypatch.setitem(codecs._CODECS, "broken", broken := BrokenCodec())
    better = replace(raw_curve(2), point=replace(raw_point(0), codec="broken"), agreements=np.arange(1, 16) / 15)
    encoder = Encoder([better, raw_curve(2)], CANVAS)
    encode = Encode(lambda taught: encoder.asking(b""), FakeLink().wire_bits, 10**6)
    for seq in range(3):
        evidence = await encode.process(selected_of(None, seq=seq))
        assert isinstance(evidence, Evidence)
        assert evidence.point.codec == "raw-zstd"
    assert broken.calls == 1
    assert caplog.text.count("event=codec_left_out codec=broken") == 1
    assert "encoder error -2" in caplog.text


async def test_where_every_codec_fails_the_frame_fails_and_the_next_one_is_tried_again(monkeypatch):
    encode = make_encode()
    with monkeypatch.context() as patch:
        patch.setattr(RawZstd, "encode", BrokenCodec().encode)
        with pytest.raises(CodecFailed, match="raw-zstd cannot be coded"):
            await encode.process(selected_of(None))
    assert isinstance(await encode.process(selected_of(None)), Evidence)
