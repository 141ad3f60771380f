"""Combinations of classes: labels, answers, and head files that hold them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sagelink.models.heads.combinations import answers_of, classes_in, fault_of_class, label_of, membership, names_of
from sagelink.models.heads.further import NamedHead
from sagelink.models.heads.head import Head, HeadCard, head_bytes, parse_head, write_head
from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config
from sagelink.pipeline.errors import UsageError
from tests.heads import random_head


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair.load(load_config(None, {"models": "demo"}))


@pytest.fixture(scope="module")
def head(pair: Pair) -> Head:
    """A head whose pictures may show a car, a person, both or none."""
    one = random_head(pair, ("car", "person"))
    card = one.card.model_copy(update={"combinations": answers_of(2, ())})
    return parse_head(head_bytes(Head(card, one.edge, one.server)), "the head")


def test_labels_name_classes_in_any_order() -> None:
    assert classes_in("person + car") == {"car", "person"}
    assert classes_in("none") == set()
    assert label_of(("person", "car")) == "car + person"
    assert label_of(()) == "none"
    assert fault_of_class("car+trailer")
    assert fault_of_class("None")
    assert fault_of_class("car") is None


def test_few_classes_may_combine_freely_and_many_only_as_taught() -> None:
    assert answers_of(2, ()) == ((), (0,), (1,), (0, 1))
    assert len(answers_of(6, ())) == 64
    many = answers_of(8, [(2, 5)])
    assert many == ((), *((number,) for number in range(8)), (2, 5))
    assert names_of("abcdefgh", many)[-1] == "c + f"
    assert membership(8, many)[-1].tolist() == [0, 0, 1, 0, 0, 1, 0, 0]


def test_a_head_file_holds_classes_and_answers_with_combinations(head: Head, pair: Pair) -> None:
    assert head.card.classes == ("car", "person")
    assert head.classes == ("none", "car", "person", "car + person")
    assert head.edge.weight.shape[0] == 2
    expanded = head.answering(head.edge)
    np.testing.assert_allclose(expanded.weight[3], head.edge.weight.sum(0), atol=1e-5)
    np.testing.assert_allclose(expanded.weight[0], 0)


def test_the_probabilities_of_the_classes_are_those_of_its_sigmoids(head: Head, pair: Pair, tmp_path: Path) -> None:
    write_head(head, tmp_path / "site.head")
    (named,) = NamedHead.load_all({"site": tmp_path / "site.head"}, None, pair.check_head, pair.server)
    features = np.random.default_rng(3).normal(size=(4, 2 * pair.edge.vit.embed_dim)).astype(np.float32)
    token = features[:, : pair.edge.vit.embed_dim]
    logits = (token @ head.edge.weight.T + head.edge.bias) / head.edge.card.temperature
    for answer, row in zip(named.answers(features), 1 / (1 + np.exp(-logits)), strict=True):
        probs = answer.class_probs()
        assert probs is not None
        np.testing.assert_allclose([*probs.values()], row, atol=1e-4)
        shown = [name for name, prob in zip(head.card.classes, row, strict=True) if prob > 0.5]
        assert answer.label == label_of(shown)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"combinations": ((0,), (1, 0))}, "rising numbers of classes"),
        ({"combinations": ((0,), (2,))}, "rising numbers of classes"),
        ({"combinations": ((0,), (0,))}, "listed twice"),
        ({"combinations": ((0,),)}, "at least 2"),
        ({"combinations": ((0,), (1,)), "classes": ("car", "none")}, "reserved"),
        ({"combinations": ((0,), (1,)), "classes": ("car", "a + b")}, "reserved"),
        ({"combinations": None, "classes": ("car",)}, "at least 2"),
    ],
)
def test_hostile_combinations_are_refused(head: Head, change: dict[str, object], message: str) -> None:
    card = HeadCard.model_construct(**(dict(head.card) | change))
    with pytest.raises(UsageError, match=message):
        parse_head(head_bytes(replace(head, card=card, content=None)), "the head")
