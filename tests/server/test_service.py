"""The server stage on real messages: its answers are the model's, and bad messages are answered with a reason."""

from __future__ import annotations

import asyncio
import copy
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from sagelink.models import loading
from sagelink.models.labels import labels_fingerprint
from sagelink.monitor.metrics import ServerMetrics
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.types import OperatingPoint, Reply
from sagelink.server.batch import BatchLimits
from sagelink.server.classify import Classifier
from sagelink.server.receive import receive
from sagelink.server.service import Service
from sagelink.transport.bundle import encode_bundle
from sagelink.transport.codecs import Canvas
from sagelink.transport.codecs.raw import RawZstd
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from sagelink.transport.in_process import InProcessLink
from sagelink.transport.link import CameraInfo, Message
from sagelink.transport.reply_message import decode_reply
from tests.patience import PATIENCE_S

RAW = OperatingPoint("raw-zstd", 196, 112, 0)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(loading.load(ModelConfig(), "demo-server"))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)


def message(picture: np.ndarray, units: list[int], seq: int = 5, side: int = 14, patch: int = 8) -> bytes:
    chosen = np.array(units)
    payload = RawZstd().encode(picture, chosen, RAW, Canvas(side, picture.shape[0] // side))
    return encode_evidence(EvidenceMessage(seq, side, patch, RawZstd.number, chosen, payload))


ALONE = BatchLimits(max_units=1, max_wait_s=0.0, per_camera=64)


def fitting(classifier: Classifier) -> CameraInfo:
    """Of a camera that the model fits."""
    grid, labels = classifier.model.grid, classifier.model.labels
    return CameraInfo(grid.side, grid.patch_size, labels_fingerprint(labels), 5.0)


def service(link: InProcessLink, classifier: Classifier, limits: BatchLimits = ALONE) -> Service:
    return Service(link, classifier, limits, ServerMetrics(CollectorRegistry()))


async def ask(
    classifier: Classifier, *asked: tuple[str, bytes], limits: BatchLimits = ALONE
) -> list[tuple[str, Reply]]:
    """The replies to messages of cameras, in the order in which they come."""
    async with InProcessLink(capacity=100) as link:
        for camera, data in asked:
            assert await link.send(camera, data) is None
        link.close()
        await service(link, classifier, limits).run()
    return [(camera, decode_reply(data)) async for camera, data in link.replies()]


async def test_lost_parts_and_lost_replies_are_counted(classifier: Classifier, picture: np.ndarray) -> None:
    class Losing(InProcessLink):
        """Parts are missing from each message, and the sender of the second has left."""

        async def messages(self) -> AsyncIterator[Message]:
            async for each in super().messages():
                yield replace(each, lost_parts=3)

        async def reply(self, message: Message, data: bytes) -> bool:
            return message.sender == "site/door"

    link, registry = Losing(capacity=2), CollectorRegistry()
    link.cameras = {"site/door": fitting(classifier)}
    two = encode_bundle(5, [message(picture, [0, 1]), message(picture, [2])])
    await link.send("site/door", two)
    await link.send("site/yard", message(picture, [0]))
    link.close()
    await Service(link, classifier, ALONE, ServerMetrics(registry)).run()
    value = registry.get_sample_value
    assert value("sagelink_server_parts_total", {"outcome": "arrived"}) == 3
    assert value("sagelink_server_parts_total", {"outcome": "lost"}) == 6
    door, other = {"node": "site", "camera": "door"}, {"node": "", "camera": ""}
    assert value("sagelink_server_lost_replies_total", other) == 1
    assert value("sagelink_server_received_bytes_total", door) == len(two)
    assert value("sagelink_server_messages_total", {"outcome": "answered"} | door) == 1
    assert value("sagelink_server_messages_total", {"outcome": "answered"} | other) == 1


async def answer(classifier: Classifier, data: bytes) -> Reply:
    ((camera, reply),) = await ask(classifier, ("door", data))
    assert camera == "door"
    return reply


async def test_all_units_give_the_answer_of_the_model(classifier: Classifier, picture: np.ndarray) -> None:
    reply = await answer(classifier, message(picture, list(range(196))))
    with torch.inference_mode():
        expected = classifier.model.vit(classifier.model.normalise(picture)[None])[0].log_softmax(0)
    values, classes = expected.topk(5)
    assert reply.seq == 5
    assert reply.refusal is None
    assert reply.units == 196
    assert list(reply.class_ids) == classes.tolist()
    np.testing.assert_allclose(reply.log_probs, values.tolist(), atol=1e-4)
    assert reply.server_ms > 0


async def test_fewer_units_change_the_answer_and_are_counted(classifier: Classifier, picture: np.ndarray) -> None:
    everything = await answer(classifier, message(picture, list(range(196))))
    few = await answer(classifier, message(picture, [0, 50, 195]))
    assert few.units == 3
    assert few.log_probs != everything.log_probs


def test_little_evidence_uses_its_own_weights(classifier: Classifier, picture: np.ndarray) -> None:
    """Short messages and few units are answered by the second network, all else by the first, in one batch."""
    stock = classifier.model
    other = copy.deepcopy(stock.vit)
    torch.nn.init.normal_(other.head.bias)
    full, few = message(picture, list(range(196))), message(picture, list(range(50)))
    two = Classifier(replace(stock, partial=loading.Partial(other, max_bytes=0, max_units=50)))
    short = Classifier(replace(stock, partial=loading.Partial(other, max_bytes=len(few), max_units=0)))
    none = Classifier(replace(stock, partial=loading.Partial(other, max_bytes=len(few) - 1, max_units=49)))
    partial = Classifier(replace(stock, vit=other))
    evidence = [receive(each, classifier.canvas) for each in (full, few, full, few)]
    by_stock, by_other = classifier(evidence), partial(evidence)
    assert by_stock != by_other
    for mixed in (two, short):
        assert mixed.passes(evidence) == [[0, 2], [1, 3]]
        assert mixed(evidence) == [by_stock[0], by_other[1], by_stock[2], by_other[3]]
    assert none(evidence) == by_stock


def test_pixels_arrive_exactly(classifier: Classifier, picture: np.ndarray) -> None:
    received = receive(message(picture, [0, 15, 195]), classifier.canvas)
    assert (received.content[0] == picture[:8, :8]).all()
    assert (received.content[1] == picture[8:16, 8:16]).all()
    assert (received.content[2] == picture[-8:, -8:]).all()


async def test_another_grid_is_refused_with_a_reason(classifier: Classifier) -> None:
    other = np.zeros((112, 112, 3), np.uint8)
    reply = await answer(classifier, message(other, [0], side=7, patch=16))
    assert reply.class_ids == ()
    assert reply.refusal == ("units of 16 pixels on a grid of 7x7; this server's model has units of 8 pixels on 14x14")


async def test_an_inconsistent_payload_is_refused(classifier: Classifier, picture: np.ndarray) -> None:
    payload = RawZstd().encode(picture, np.arange(3), RAW, classifier.canvas)
    lying = encode_evidence(EvidenceMessage(9, 14, 8, RawZstd.number, np.arange(4), payload))
    reply = await answer(classifier, lying)
    assert (reply.seq, reply.class_ids) == (9, ())
    assert "does not unpack to the 768 bytes" in reply.refusal


async def test_invalid_bytes_get_no_reply_and_the_next_message_does(
    classifier: Classifier, picture: np.ndarray
) -> None:
    good = message(picture, [1, 2, 3], seq=77)
    replies = await ask(classifier, *(("door", data) for data in (b"", b"rubbish", good[:-1], good)))
    assert [(camera, reply.seq, reply.refusal) for camera, reply in replies] == [("door", 77, None)]


async def test_frames_of_unequal_length_get_the_same_answers_in_a_batch_as_alone(
    classifier: Classifier, picture: np.ndarray
) -> None:
    asked = [(f"camera{i}", message(picture, list(range(i, 196, i)), seq=i)) for i in range(1, 9)]
    alone = dict(await ask(classifier, *asked))
    together = dict(await ask(classifier, *asked, limits=BatchLimits(10_000, 0.0, 4)))
    assert alone.keys() == together.keys() == {camera for camera, _ in asked}
    for camera, reply in alone.items():
        assert together[camera].class_ids == reply.class_ids
        assert (together[camera].seq, together[camera].units) == (reply.seq, reply.units)
        np.testing.assert_allclose(together[camera].log_probs, reply.log_probs, atol=1e-4)


async def test_one_bad_frame_in_a_batch_affects_no_other(classifier: Classifier, picture: np.ndarray) -> None:
    lying = encode_evidence(EvidenceMessage(9, 14, 8, RawZstd.number, np.arange(4), b"x"))
    asked = [("a", message(picture, [1, 2], seq=1)), ("b", lying), ("c", message(picture, [3], seq=3))]
    replies = dict(await ask(classifier, *asked, limits=BatchLimits(10_000, 0.0, 4)))
    assert {camera: bool(reply.refusal) for camera, reply in replies.items()} == {"a": False, "b": True, "c": False}


async def test_a_camera_with_another_model_gets_the_reason(classifier: Classifier, picture: np.ndarray) -> None:
    fits = fitting(classifier)
    link = InProcessLink(capacity=100)
    link.cameras = {"other classes": replace(fits, classes="?"), "fits": fits, "late": replace(fits, deadline_s=1e-9)}
    for camera in link.cameras:
        await link.send(camera, message(picture, [1]))
    running = service(link, classifier)
    async with link:
        link.close()
        await running.run()
    refusals = {camera: decode_reply(data).refusal async for camera, data in link.replies()}
    assert refusals == {
        "other classes": "the models of the camera and of this server have different class names",
        "fits": None,  # and the late one has no use for an answer
    }
    assert "14x14" in running.misfit(replace(fits, side=7))


async def test_a_message_that_the_transport_refuses_is_answered_with_its_reason(
    classifier: Classifier, picture: np.ndarray
) -> None:
    class Refusing(InProcessLink):
        async def messages(self) -> AsyncIterator[Message]:
            async for each in super().messages():
                yield replace(each, data=each.data[:16], refusal="not announced")

    link = Refusing(capacity=100)
    async with link:
        await link.send("door", message(picture, [1], seq=9))
        link.close()
        await service(link, classifier).run()
    assert [decode_reply(data).refusal async for _, data in link.replies()] == ["not announced"]


async def test_a_flood_of_refusals_waits_for_no_reply_and_logs_one_line_per_node(
    classifier: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker takes no replies: messages still leave the link at once."""
    admitted = 0

    class Stalled(InProcessLink):
        async def messages(self) -> AsyncIterator[Message]:
            nonlocal admitted
            header = encode_evidence(EvidenceMessage(1, 14, 8, 1, np.array([0]), b""))
            for number in range(3000):
                yield Message(f"box/invented{number}", header, 0.0, refusal="not announced")
                admitted += 1

        async def reply(self, message: Message, data: bytes) -> bool:
            await asyncio.Event().wait()
            return False

    running = asyncio.create_task(service(Stalled(), classifier).run())
    async with asyncio.timeout(PATIENCE_S):
        while admitted < 3000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    assert caplog.text.count("not announced") == 1


async def test_a_malformed_message_is_logged_with_the_reason(
    classifier: Classifier, picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    good = message(picture, [1])
    body = good[:2] + b"\3" + good[3:-4]
    assert await ask(classifier, ("door", body + zlib.crc32(body).to_bytes(4))) == []
    assert "version 3; accepted: 4" in caplog.text


async def test_a_displaced_frame_gets_a_refusal(classifier: Classifier, picture: np.ndarray) -> None:
    asked = [("greedy", message(picture, [1], seq=seq)) for seq in range(4)]
    replies = await ask(classifier, *asked, limits=BatchLimits(1, 10.0, 2))
    assert sorted((reply.seq, reply.refusal is None) for _, reply in replies) == [
        *((0, False), (1, False), (2, True), (3, True))
    ]
    assert all(reply.queue_ms > 0 and reply.waiting for _, reply in replies if reply.refusal)  # so that it holds back


async def test_a_failing_model_refuses_its_frames_and_goes_on(
    classifier: Classifier, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Classifier, "answers", fail)
    reply = await answer(classifier, message(picture, [1], seq=4))
    assert (reply.seq, reply.refusal) == (4, "the server failed on this frame")


def test_a_malformed_message_never_reaches_the_model(classifier: Classifier, picture: np.ndarray) -> None:
    data = bytearray(message(picture, [4]))
    data[20] ^= 1
    with pytest.raises(MalformedMessage, match="checksum"):
        receive(bytes(data), classifier.canvas)


async def test_an_answer_that_is_not_finite_is_refused_with_a_reason(
    classifier: Classifier, picture: np.ndarray
) -> None:
    broken = copy.deepcopy(classifier.model.vit)
    broken.head.bias.data[2] = float("nan")
    reply = await answer(Classifier(replace(classifier.model, vit=broken)), message(picture, [0, 1]))
    assert reply.refusal == "the server model gave no number"
    assert (reply.class_ids, reply.units) == ((), 0)
