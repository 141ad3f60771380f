"""The server stage on real messages: its answers are the model's, and bad messages are answered with a reason."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from models import zoo
from pipeline.config import ModelConfig
from pipeline.types import OperatingPoint, Reply
from server.classify import Classifier
from server.receive import receive
from server.service import Answerer, server_graph
from transport.codecs import Canvas
from transport.codecs.raw import RawZstd
from transport.in_process import InProcessLink
from transport.link import Message
from transport.wire import EvidenceMessage, MalformedMessage, decode_reply, encode_evidence

RAW = OperatingPoint("raw-zstd", 196, 112, 0)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(zoo.load(ModelConfig(), "demo-server"))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)


def message(picture: np.ndarray, units: list[int], seq: int = 5, side: int = 14, patch: int = 8) -> bytes:
    chosen = np.array(units)
    payload = RawZstd().encode(picture, chosen, RAW, Canvas(side, picture.shape[0] // side))
    return encode_evidence(EvidenceMessage(seq, side, patch, RawZstd.number, chosen, payload))


def answer(classifier: Classifier, data: bytes) -> Reply | None:
    answered = Answerer(classifier)(Message("door", data, 0.0))
    if answered is None:
        return None
    sender, reply = answered
    assert sender == "door"
    return decode_reply(reply)


def test_all_units_give_the_models_own_answer(classifier: Classifier, picture: np.ndarray) -> None:
    reply = answer(classifier, message(picture, list(range(196))))
    with torch.inference_mode():
        expected = classifier.model.vit(classifier.model.normalise(picture)[None])[0].log_softmax(0)
    values, classes = expected.topk(5)
    assert reply.seq == 5
    assert reply.refusal is None
    assert reply.units == 196
    assert list(reply.class_ids) == classes.tolist()
    np.testing.assert_allclose(reply.log_probs, values.tolist(), atol=1e-4)
    assert reply.server_ms > 0


def test_fewer_units_change_the_answer_and_are_counted(classifier: Classifier, picture: np.ndarray) -> None:
    everything = answer(classifier, message(picture, list(range(196))))
    few = answer(classifier, message(picture, [0, 50, 195]))
    assert few.units == 3
    assert few.log_probs != everything.log_probs


def test_pixels_arrive_exactly(classifier: Classifier, picture: np.ndarray) -> None:
    received = receive(message(picture, [0, 15, 195]), classifier.canvas)
    assert (received.content[0] == picture[:8, :8]).all()
    assert (received.content[1] == picture[8:16, 8:16]).all()
    assert (received.content[2] == picture[-8:, -8:]).all()


def test_another_grid_is_refused_with_a_reason(classifier: Classifier) -> None:
    other = np.zeros((112, 112, 3), np.uint8)
    reply = answer(classifier, message(other, [0], side=7, patch=16))
    assert reply.class_ids == ()
    assert reply.refusal == ("units of 16 pixels on a grid of 7x7; this server's model has units of 8 pixels on 14x14")


def test_a_payload_that_lies_is_refused(classifier: Classifier, picture: np.ndarray) -> None:
    payload = RawZstd().encode(picture, np.arange(3), RAW, classifier.canvas)
    lying = encode_evidence(EvidenceMessage(9, 14, 8, RawZstd.number, np.arange(4), payload))
    reply = answer(classifier, lying)
    assert (reply.seq, reply.class_ids) == (9, ())
    assert "does not unpack to the 768 bytes" in reply.refusal


async def test_rubbish_gets_no_reply_and_the_next_message_does(classifier: Classifier, picture: np.ndarray) -> None:
    link = InProcessLink()
    async with asyncio.TaskGroup() as group:
        group.create_task(server_graph(link, classifier).run())
        good = message(picture, [1, 2, 3], seq=77)
        for data in (b"", b"rubbish", good[:-1], good):
            assert await link.send("door", data) is None
        camera, reply = await anext(link.replies())
        link.close()
    assert (camera, decode_reply(reply).seq) == ("door", 77)


def test_a_malformed_message_never_reaches_the_model(classifier: Classifier, picture: np.ndarray) -> None:
    data = bytearray(message(picture, [4]))
    data[20] ^= 1
    with pytest.raises(MalformedMessage, match="checksum"):
        receive(bytes(data), classifier.canvas)
