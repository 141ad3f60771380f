"""Delta coding end to end: edge and server memory with lost and reordered messages, restarts and several servers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sagelink.pipeline.types import OperatingPoint, Pixels, Reference, Reply, Units
from sagelink.server.memory import ReferenceStore
from sagelink.server.receive import Received, receive
from sagelink.stages.reference_tracker import ReferenceTracker
from sagelink.transport.codecs import codec_by_name, cut_units
from sagelink.transport.delta_message import NO_REFERENCE, delta_overhead_bytes, encode_delta, reference_name
from sagelink.transport.envelope import MalformedMessage
from sagelink.transport.evidence_claim import EvidenceClaim, peek
from sagelink.transport.evidence_message import EvidenceMessage, encode_evidence
from tests.fakes import CANVAS, PATCH, SIDE, make_picture

RAW = codec_by_name("raw-zstd")
UNITS = SIDE**2


def evidence(seq: int, picture: Pixels, units: Units) -> EvidenceMessage:
    payload = RAW.encode(picture, units, OperatingPoint("raw-zstd", len(units), SIDE * PATCH, 0), CANVAS)
    return EvidenceMessage(seq, SIDE, PATCH, RAW.number, units, payload)


@dataclass
class Server:
    """One server process."""

    memory: ReferenceStore = field(default_factory=lambda: ReferenceStore(1_000_000))

    def answer(self, camera: str, message: bytes, now_s: float) -> tuple[Received, Reply]:
        received = receive(message, CANVAS, lambda name: self.memory.recall(camera, name, now_s))
        assert received.name is not None
        self.memory.keep(camera, received.name, received.units, received.content, now_s)
        return received, Reply(received.seq, None, (0,), (-0.1,), len(received.units), 1.0)


@dataclass
class Camera:
    """One edge process."""

    name: str = "door"
    tracker: ReferenceTracker = field(default_factory=lambda: ReferenceTracker(PATCH, 1000.0, least_new=3))
    new: int = 3  # new units per message

    def code(self, seq: int, picture: Pixels, now_s: float) -> tuple[bytes, Reference] | None:
        reference = self.tracker.reference_for(picture, now_s)
        if reference is None:
            return None
        units = np.setdiff1d(np.arange(UNITS), reference.units)[: self.new]
        message = encode_delta(evidence(seq, picture, units), reference.name, reference.units)
        self.tracker.register_sent(seq, message, reference, units, picture, now_s)
        return message, reference


# The fate of a message, and the event before it.
FATES = st.sampled_from(["answer", "answer", "answer", "lose", "lose reply", "late reply", "twice"])
EVENTS = st.sampled_from([None, None, None, None, "scene", "edge restarts", "server restarts", "other server"])


@given(st.lists(st.tuples(FATES, EVENTS, st.sampled_from(["door", "yard"])), max_size=40))
@example([("answer", None, "door"), ("answer", "other server", "door"), ("answer", "scene", "door")])
@settings(max_examples=150, deadline=None)
def test_the_server_never_uses_units_that_differ_from_the_frame(steps):
    """Two cameras with different scenes, two servers; a picture changes only with its scene, so its units are known."""
    scene = {"door": 0, "yard": 500}
    cameras = {name: Camera(name) for name in scene}
    servers, now = [Server(), Server()], 0
    late: list[tuple[str, Reply]] = []
    for seq, (fate, event, name) in enumerate(steps):
        match event:
            case "scene":
                scene[name] += 1
            case "edge restarts":
                cameras[name] = Camera(name)
            case "server restarts":
                servers[now] = Server()
            case "other server":
                now = 1 - now
        camera, picture = cameras[name], make_picture(seed=scene[name])
        coded = camera.code(seq, picture, float(seq))
        if coded is None or fate == "lose":
            continue
        message, reference = coded
        for _ in range(2 if fate == "twice" else 1):
            received, reply = servers[now].answer(name, message, float(seq))
            np.testing.assert_array_equal(received.content, cut_units(picture, received.units, PATCH))
            new = len(received.units) - len(reference.units)
            assert new == camera.new or len(received.units) == camera.new
            assert peek(message) == EvidenceClaim(seq, camera.new + len(reference.units))
        if fate == "late reply":
            late.append((name, reply))
        elif fate != "lose reply":
            camera.tracker.acknowledge(reply)
        if late and seq % 3 == 0:
            name, reply = late.pop()
            cameras[name].tracker.acknowledge(reply)


def test_successive_messages_add_units_at_the_server():
    camera, server, picture = Camera(new=5, tracker=ReferenceTracker(PATCH, 9.0)), Server(), make_picture(seed=1)
    counts = []
    for seq in range(3):
        message, _ = camera.code(seq, picture, float(seq))
        received, reply = server.answer("door", message, float(seq))
        camera.tracker.acknowledge(reply)
        counts.append(len(received.units))
    assert counts == [5, 10, 15]
    assert camera.tracker.reference_for(picture, 3.0).units.tolist() == [*range(15)]


def test_changed_or_old_units_do_not_count():
    camera, server, picture = Camera(new=6, tracker=ReferenceTracker(PATCH, 2.0)), Server(), make_picture(seed=1)
    message, _ = camera.code(0, picture, 0.0)
    camera.tracker.acknowledge(server.answer("door", message, 0.0)[1])
    changed = picture.copy()
    changed[:PATCH, PATCH : 2 * PATCH] ^= 128  # unit 1
    changed[:PATCH, :PATCH] ^= 1  # unit 0, by less than the threshold
    assert camera.tracker.reference_for(changed, 1.0).units.tolist() == [0, 2, 3, 4, 5]
    assert camera.tracker.reference_for(picture, 2.0).units.tolist() == [0, 1, 2, 3, 4, 5]
    assert camera.tracker.reference_for(picture, 2.1).name == NO_REFERENCE
    assert len(camera.tracker.reference_for(picture, -1.0).units) == 0  # a clock that jumped back


def test_the_oldest_units_are_always_sent_again():
    camera, server, picture = (
        Camera(new=8, tracker=ReferenceTracker(PATCH, 100.0, least_new=4)),
        Server(),
        make_picture(seed=1),
    )
    for seq in range(2):
        message, _ = camera.code(seq, picture, float(seq))
        camera.tracker.acknowledge(server.answer("door", message, float(seq))[1])
    assert camera.tracker.reference_for(picture, 2.0).units.tolist() == [*range(4), *range(8, 16)]


def test_unacknowledged_units_are_not_used():
    camera, picture = Camera(), make_picture(seed=1)
    for seq in range(3):
        _, reference = camera.code(seq, picture, float(seq))
        assert reference.name == NO_REFERENCE


def test_after_reordered_replies_the_newest_memory_counts():
    camera, server, picture = Camera(), Server(), make_picture(seed=1)
    one, two = (camera.code(seq, picture, float(seq))[0] for seq in (0, 1))
    replies = [server.answer("door", message, 0.0)[1] for message in (one, two)]
    camera.tracker.acknowledge(replies[1])
    camera.tracker.acknowledge(replies[0])
    assert camera.tracker.reference_for(picture, 2.0).name == reference_name(two, completed=False)


@pytest.mark.parametrize("refusal", [None, "unknown codec 10"])
def test_the_pause_doubles_each_time_the_server_lacks_a_reference(refusal):
    camera, picture, seq = Camera(), make_picture(seed=1), iter(range(10_000))
    pauses = []
    for _ in range(9):
        while camera.tracker.reference_for(picture, 0.0) is None:
            pass
        for _ in range(2):  # a reference, and a message that uses it
            number = next(seq)
            message, reference = camera.code(number, picture, 0.0)
            received = receive(message, CANVAS)  # a server without memory
            units = 0 if refusal else len(received.units)
            camera.tracker.acknowledge(
                Reply(number, refusal, () if refusal else (0,), () if refusal else (-0.1,), units, 1.0)
            )
            if refusal or len(reference.units):
                break
        pause = 0
        while camera.tracker.reference_for(picture, 0.0) is None:
            pause += 1
        pauses.append(pause)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64, 64]


# The server's store


def test_a_camera_finds_only_its_own_references():
    camera, server, picture = Camera(), Server(), make_picture(seed=1)
    message, _ = camera.code(0, picture, 0.0)
    server.answer("door", message, 0.0)
    name = reference_name(message, completed=False)
    assert server.memory.recall("door", name, 0.0) is not None
    assert server.memory.recall("yard", name, 0.0) is None


def test_the_store_is_bounded_in_bytes_entries_and_time():
    units, content = np.arange(4), np.zeros((4, PATCH, PATCH, 3), np.uint8)
    memory = ReferenceStore(max_bytes=10 * (content.nbytes + units.nbytes))
    for number in range(100):
        memory.keep(f"camera-{number % 5}", bytes([number] * 8), units, content, float(number) / 100)
        assert memory.size_bytes <= 10 * (content.nbytes + units.nbytes)
    found = [n for n in range(100) if memory.recall(f"camera-{n % 5}", bytes([n] * 8), 1.0) is not None]
    assert found == [*range(90, 100)]
    for number in range(100, 110):
        memory.keep("door", bytes([number] * 8), units, content, 1.0)
    assert sum(memory.recall("door", bytes([n] * 8), 1.0) is not None for n in range(100, 110)) == 4
    assert memory.recall("door", bytes([109] * 8), 200.0) is None
    assert memory.size_bytes == 0


def test_a_store_of_size_zero_stores_nothing():
    memory = ReferenceStore(0)
    memory.keep("door", b"12345678", np.arange(2), np.zeros((2, PATCH, PATCH, 3), np.uint8), 0.0)
    assert memory.recall("door", b"12345678", 0.0) is None


def test_stored_units_are_a_copy():
    memory, content = ReferenceStore(1_000_000), np.zeros((2, PATCH, PATCH, 3), np.uint8)
    memory.keep("door", b"12345678", np.arange(2), content, 0.0)
    content[:] = 9
    assert not memory.recall("door", b"12345678", 0.0).content.any()


def test_a_node_with_many_cameras_takes_no_memory_from_others():
    units, content = np.arange(4), np.zeros((4, PATCH, PATCH, 3), np.uint8)
    memory = ReferenceStore(max_bytes=10 * (content.nbytes + units.nbytes))
    memory.keep("small/door", b"12345678", units, content, 0.0)
    for number in range(100):
        memory.keep(f"big/camera{number}", b"12345678", units, content, 1.0)
    assert memory.recall("small/door", b"12345678", 1.0) is not None
    assert sum(memory.recall(f"big/camera{n}", b"12345678", 1.0) is not None for n in range(100)) == 9


# The wire


def test_golden_delta_message():
    """Units 0 and 4 of a 4x4 grid, added to a reference of which unit 1 is still valid."""
    new_units = EvidenceMessage(7, SIDE, PATCH, 1, np.array([0, 4]), b"rest")
    message = encode_delta(new_units, b"basename", np.array([1]))
    assert message[:-4].hex(" ") == (
        "53 47 04 01 00 00 00 07 04 04 0a 00 02 "  # header of evidence, codec 10
        "06 "  # units 0 and 4
        "62 61 73 65 6e 61 6d 65 00 01 01 "  # reference, 1 unit kept, codec 1
        "01 72 65 73 74"  # unit 1, payload
    )
    assert peek(message) == EvidenceClaim(7, 3)
    assert len(message) - len(encode_evidence(new_units)) == delta_overhead_bytes(UNITS, 1)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "cut short"),
        (b"basename\x00\x01", "cut short"),
        (b"basename\x00\x02\x01", "cut short"),
        (b"basename\xff\xff\x01", "65535 units retained besides 2"),
        (b"basename\x00\x0f\x01", "15 units retained besides 2"),
        (b"basename\x00\x00\x01", "0 units retained"),
        (NO_REFERENCE + b"\x00\x01\x01\x01", "1 units retained"),
        (b"basename\x00\x01\x01\xff", "rank"),
        (b"basename\x00\x01\x01\x04", "both retained and sent"),
        (b"basename\x00\x01\x0a\x01", "unknown codec 10"),
    ],
)
def test_malformed_delta_messages(payload, reason):
    message = encode_evidence(EvidenceMessage(7, SIDE, PATCH, 10, np.array([0, 4]), payload))
    with pytest.raises(MalformedMessage, match=reason):
        receive(message, CANVAS)


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_decoded(payload):
    message = encode_evidence(EvidenceMessage(7, SIDE, PATCH, 10, np.array([0, 4]), payload))
    try:
        assert peek(message).seq == 7
        receive(message, CANVAS)
    except MalformedMessage:
        pass


def test_units_that_the_reference_never_had_are_left_out():
    server, picture = Server(), make_picture(seed=1)
    first = encode_delta(evidence(0, picture, np.arange(3)), NO_REFERENCE, np.empty(0, np.intp))
    server.answer("door", first, 0.0)
    lying = encode_delta(evidence(1, picture, np.array([9])), reference_name(first, completed=False), np.array([2, 3]))
    received, _ = server.answer("door", lying, 1.0)
    assert received.units.tolist() == [9]
    assert received.forgotten
