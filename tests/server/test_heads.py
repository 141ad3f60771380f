"""Heads of a server: bounded memory, the folder, whom it asks, and answers of different heads in one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sagelink.models import loading
from sagelink.models.heads.apply import server_with_head
from sagelink.models.heads.head import Head, parse_head
from sagelink.models.pair import Pair
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.errors import UsageError
from sagelink.server.classify import Classifier
from sagelink.server.head_intake import HeadIntake
from sagelink.server.head_store import HeadStore
from sagelink.server.receive import Received
from sagelink.transport.head_messages import HeadPart, HeadState, HeadStatus
from tests.heads import random_head


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(*(loading.load(ModelConfig(), f"demo-{role}") for role in ("edge", "server")))


@pytest.fixture(scope="module")
def heads(pair: Pair) -> list[Head]:
    return [random_head(pair, tuple(f"{seed} {name}" for name in "abc"), seed) for seed in range(4)]


def parts(head: Head, size: int = 700) -> Iterator[HeadPart]:
    content = head.file_content()
    for offset in range(0, len(content), size):
        yield HeadPart(head.taught.fingerprint, len(content), offset, content[offset : offset + size])


def test_frames_of_different_heads_share_a_batch_and_get_the_answers_of_their_heads(
    pair: Pair, heads: list[Head]
) -> None:
    rng = np.random.default_rng(0)
    grid, store = pair.server.grid, HeadStore(pair.server, 10**7)
    batch = [
        Received(seq, np.sort(rng.choice(grid.units, count, replace=False)), pixels)
        for seq, count in enumerate((40, 40, 44, 40, 41))
        for pixels in [rng.integers(0, 256, (count, grid.patch_size, grid.patch_size, 3), np.uint8)]
    ]
    asked = [heads[0], heads[1], None, heads[0], heads[2]]
    readouts = [store.add(head.file_content(), 0.0).readout if head else None for head in asked]
    classifier = Classifier(pair.server)
    assert len(classifier.passes(batch)) == 1
    answers = classifier(batch, readouts)
    for received, head, (classes, log_probs) in zip(batch, asked, answers, strict=True):
        alone = Classifier(server_with_head(head, pair.server) if head else pair.server)([received])
        assert alone[0][0] == classes
        np.testing.assert_allclose(alone[0][1], log_probs, atol=1e-3)
    assert [len(classes) for classes, _ in answers] == [3, 3, 5, 3, 3]


def test_the_head_that_was_used_longest_ago_leaves_and_heads_in_use_stay(pair: Pair, heads: list[Head]) -> None:
    left: list[str] = []
    size = HeadStore(pair.server, 10**6).add(heads[0].file_content(), 0.0).size_bytes
    store = HeadStore(pair.server, 3 * size + 100, on_evicted=left.append)
    for head in heads[:3]:
        store.add(head.file_content(), 0.0)
    assert store.size_bytes == 3 * size
    store.get(heads[0].taught.fingerprint, 50.0)
    with pytest.raises(UsageError, match=r"no room for a head of \d+ bytes: 3 heads are in use"):
        store.add(heads[3].file_content(), 55.0)
    store.add(heads[3].file_content(), 100.0)
    assert [label.split(" ", 1)[1] for label in left] == ["1 a, 1 b, 1 c"]
    assert store.get(heads[1].taught.fingerprint, 100.0) is None
    assert store.get(heads[0].taught.fingerprint, 100.0) is not None
    assert store.size_bytes <= 3 * size + 100


def test_a_folder_keeps_heads_for_the_next_server(pair: Pair, heads: list[Head], tmp_path: Path) -> None:
    folder, fingerprint = tmp_path / "heads", heads[0].taught.fingerprint
    HeadStore(pair.server, 10**6, folder).add(heads[0].file_content(), 0.0)
    assert HeadStore(pair.server, 10**6, folder).get(fingerprint, 0.0) is not None
    other = HeadStore(pair.edge, 10**6, folder)
    assert other.get(fingerprint, 0.0) is None  # another server model
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert HeadStore(pair.server, 10**6, folder).get(fingerprint, 0.0) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"serve\.heads"):
        HeadStore(pair.server, 10**6, tmp_path / "file")


def test_what_is_not_the_announced_head_is_refused(pair: Pair, heads: list[Head]) -> None:
    store, content = HeadStore(pair.server, 10**6), heads[0].file_content()
    with pytest.raises(UsageError, match="does not have the fingerprint"):
        store.add(content, 0.0, heads[1].taught.fingerprint)
    with pytest.raises(UsageError, match="damaged"):
        store.add(content[:-5], 0.0)
    broken = bytearray(content)
    broken[-2:] = b"\x00\x7e"  # NaN in half precision
    with pytest.raises(UsageError, match="not finite"):
        store.add(bytes(broken), 0.0)
    with pytest.raises(UsageError, match="head was taught on server model"):
        store.add(random_head(pair, server=pair.edge).file_content(), 0.0)
    assert (len(store), store.size_bytes) == (0, 0)


def test_a_head_is_asked_of_one_edge_and_of_another_when_that_is_silent(pair: Pair, heads: list[Head]) -> None:
    head, store = heads[0], HeadStore(pair.server, 10**6)
    fingerprint, intake = head.taught.fingerprint, HeadIntake(HeadStore(pair.server, 10**6))
    intake = HeadIntake(store)
    assert intake.wait_for("a/door", fingerprint, 0.0)
    assert not intake.wait_for("b/door", fingerprint, 0.1)
    wanted, coming = HeadStatus(fingerprint, HeadState.WANTED), HeadStatus(fingerprint, HeadState.COMING)
    assert intake.ask(fingerprint, 1.0) == [("a/door", wanted), ("b/door", coming)]
    first, *rest = parts(head)
    assert intake.take(first, 2.0) == []
    assert intake.remind(9.0) == []
    assert intake.remind(11.0) == [("b/door", replace(wanted, offset=700)), ("a/door", coming)]
    held = [told for part in rest for told in intake.take(part, 12.0)]
    assert held == [(camera, HeadStatus(fingerprint, HeadState.HELD)) for camera in ("b/door", "a/door")]
    assert store.get(fingerprint, 12.0) is not None
    assert intake.take(first, 13.0) == []  # nobody asked for it


def test_a_head_without_room_is_refused_at_its_first_part(pair: Pair, heads: list[Head]) -> None:
    intake = HeadIntake(HeadStore(pair.server, 100))
    fingerprint = heads[0].taught.fingerprint
    intake.wait_for("a/door", fingerprint, 0.0)
    ((camera, status),) = intake.take(next(parts(heads[0])), 1.0)
    assert (camera, status.state) == ("a/door", HeadState.REFUSED)
    assert "no room" in status.reason
    assert intake.refusal(fingerprint, 2.0) == status.reason
    assert intake.refusal(fingerprint, 40.0) is None


def test_heads_on_their_way_are_bounded(pair: Pair) -> None:
    intake = HeadIntake(HeadStore(pair.server, 10**9))
    assert sum(intake.wait_for("a/door", bytes([number]) * 16, 0.0) for number in range(200)) == 64
    huge = [HeadPart(bytes([number]) * 16, 4_000_000, 0, b"x") for number in range(5)]
    told = [told for part in huge for told in intake.take(part, 1.0)]
    assert [status.reason for _, status in told] == ["too many heads are on their way to this server"]
    assert intake.remind(500.0) == []


def test_a_head_is_parsed_from_its_bytes(heads: list[Head]) -> None:
    again = parse_head(heads[0].file_content(), "the head")
    assert again.taught == heads[0].taught
