"""Head files: what is written is read again, hostile files are refused, and a head is a classifier like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from sagelink.models import vit
from sagelink.models.heads.apply import apply_head, backbone_digest
from sagelink.models.heads.head import (
    Head,
    HeadCard,
    HeadSide,
    Reads,
    SharpnessCard,
    SideCard,
    UnknownCard,
    UnknownRule,
    fault_of_names,
    head_bytes,
    read_head,
    write_head,
)
from sagelink.models.heads.readout import logits_of
from sagelink.models.loading import Model, wrap_network
from sagelink.pipeline.answers import Sharpness
from sagelink.pipeline.errors import UsageError
from tests.models.test_vit import make_vit

NAMES = ("gate open", "gate shut", "lorry")


def make_model(name: str, **options: object) -> Model:
    network = make_vit(**options)
    network.pretrained_cfg = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return wrap_network(name, network, tuple(map(str, range(7))), "cpu")


def make_head(
    edge: Model, server: Model, reads: Reads = "token", names: tuple[str, ...] = NAMES, width: int = 32
) -> Head:
    rng = np.random.default_rng(0)
    features = width * (2 if reads == "token+mean" else 1)

    def side(model: Model) -> HeadSide:
        card = SideCard(model=model.name, backbone=backbone_digest(model), reads=reads, temperature=2.0)
        return HeadSide(
            card, *(rng.normal(size=shape).astype(np.float32) for shape in ((len(names), features), len(names)))
        )

    edge_side, server_side = side(edge), side(server)
    unknown = UnknownCard(residual=1.5, threshold=9.0)
    basis, *others = (rng.normal(size=shape).astype(np.float32) for shape in ((4, features), features, (len(names), 4)))
    # Column by column in memory, as from an eigendecomposition: the file must hold it row by row.
    rule = UnknownRule.from_tensors(np.asfortranarray(basis), *others, unknown)
    card = HeadCard(
        classes=names,
        edge=edge_side.card,
        server=server_side.card,
        gate_bits=0.4,
        weights=((125, 0.0), (1000, 0.8)),
        sharpness=SharpnessCard(base=1.2, age=0.5),
        unknown=unknown,
    )
    assert rule.basis.flags.f_contiguous
    return Head(card, edge_side, server_side, rule)


@pytest.fixture(scope="module")
def pair() -> tuple[Model, Model]:
    return make_model("edge"), make_model("server", reg_tokens=2)


@pytest.mark.parametrize("reads", ["token", "mean", "token+mean"])
def test_a_file_is_read_as_it_was_written(pair: tuple[Model, Model], reads: Reads, tmp_path: Path) -> None:
    head = make_head(*pair, reads)
    write_head(head, tmp_path / "site.head")
    again = read_head(tmp_path / "site.head")
    assert again.card == head.card
    assert again.taught.sharpness == Sharpness(1.2, 0.5, 0.0)
    np.testing.assert_allclose(again.server.weight, head.server.weight, rtol=1e-3, atol=1e-4)
    features = np.random.default_rng(1).normal(size=(5, head.edge.weight.shape[1])).astype(np.float32)
    assert again.unknown is not None
    assert head.unknown is not None
    np.testing.assert_allclose(again.unknown.scores(features), head.unknown.scores(features), rtol=0.02)
    assert [*tmp_path.iterdir()] == [tmp_path / "site.head"]


def test_ten_classes_of_deit_base_fit_into_64_kb(pair: tuple[Model, Model]) -> None:
    names = tuple(f"class {number}" for number in range(10))
    head = make_head(*pair, "token+mean", names, 192)
    rng = np.random.default_rng(0)
    server = HeadSide(head.server.card, rng.normal(size=(10, 1536)).astype(np.float32), head.server.bias)
    rule = UnknownRule.from_tensors(
        *(rng.normal(size=shape).astype(np.float32) for shape in ((21, 384), 384, (10, 21))), head.card.unknown
    )
    assert len(head_bytes(Head(head.card, head.edge, server, rule))) <= 64_000


@pytest.mark.parametrize("reads", ["token", "mean", "token+mean"])
@torch.no_grad()
def test_the_logits_are_those_of_the_head_on_all_units(pair: tuple[Model, Model], reads: Reads) -> None:
    head = make_head(*pair, reads)
    _, server = apply_head(head, *pair)
    assert server.labels == NAMES
    images, units = torch.randn(2, 3, 48, 48), torch.arange(36).expand(2, -1)
    tokens = server.vit.forward_features(images)
    parts = {"token": tokens[:, 0], "mean": tokens[:, 3:].mean(1)}
    features = torch.cat([parts[part] for part in reads.split("+")], 1)
    expected = (features @ torch.tensor(head.server.weight).T + torch.tensor(head.server.bias)) / 2.0
    logits = logits_of(server.vit, vit.features_of_units(server.vit, vit.to_units(images, 8), units))
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("reads", ["mean", "token+mean"])
@torch.no_grad()
def test_padding_does_not_enter_the_mean_of_partial_evidence(pair: tuple[Model, Model], reads: Reads) -> None:
    _, server = apply_head(make_head(*pair, reads), *pair)
    patches = vit.to_units(torch.randn(2, 3, 48, 48), 8)
    units = torch.tensor([[1, 5, 9, 30], [2, 3, 0, 0]])
    present = torch.tensor([[True] * 4, [True, True, False, False]])
    chosen = torch.stack([patches[row, units[row]] for row in range(2)])
    tokens = vit.final_tokens(server.vit, vit.sequence_of_units(server.vit, chosen, units), present)
    padded = logits_of(server.vit, tokens, present)
    alone = logits_of(server.vit, vit.features_of_units(server.vit, chosen[1:, :2], units[1:, :2]))
    torch.testing.assert_close(padded[1:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("reads", ["token", "mean", "token+mean"])
@pytest.mark.parametrize("importance", ["last", "rollout", "gradient"])
def test_importance_follows_the_head(pair: tuple[Model, Model], reads: Reads, importance: vit.Importance) -> None:
    images = torch.randn(2, 3, 48, 48)
    first = make_head(*pair, reads)
    turned = Head(
        first.card, HeadSide(first.edge.card, first.edge.weight[::-1].copy(), first.edge.bias + 5 * np.eye(3)[0]),
        first.server,
    )  # fmt: skip
    one, other = (vit.score(apply_head(head, *pair)[0].vit, images, importance) for head in (first, turned))
    assert one.logits.shape == (2, 3)
    assert torch.isfinite(one.importance).all()
    assert torch.equal(one.importance, other.importance) == (importance != "gradient")


def test_both_share_the_backbone_and_leave_it_as_it_was(pair: tuple[Model, Model]) -> None:
    before = backbone_digest(pair[0])
    edge, _ = apply_head(make_head(*pair), *pair)
    assert edge.vit.blocks is pair[0].vit.blocks
    assert pair[0].vit.head.weight.shape[0] == len(pair[0].labels) == 7
    assert backbone_digest(edge) == before


def test_another_backbone_is_refused_by_name(pair: tuple[Model, Model]) -> None:
    other = make_model("other", no_embed_class=True)
    torch.nn.init.normal_(other.vit.blocks[0].attn.qkv.weight)
    with pytest.raises(UsageError, match=r"server model 'server' with backbone \w+; this server model 'other'"):
        apply_head(make_head(*pair), pair[0], other)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("a", "b/c"), "contains '/'"),
        (("a", "b\x1b[31m"), "contains"),
        (("a", "b\u202e"), "contains"),
        (("a", "<b>"), "contains '<'"),
        (("Open", "open"), "too alike"),
        (("a", ""), "1 to 100"),
        (("a", " b"), "without spaces"),
        (("a", "b" * 101), "1 to 100"),
        (("a", "Unknown"), "reserved"),
    ],
)
def test_bad_names_are_refused(names: tuple[str, ...], fault: str) -> None:
    assert fault in (fault_of_names(names) or "")


def parts_of(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    with safe_open(path, "np") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["sagelink_head"])  # noqa: SIM118


BAD: dict[str, tuple[object, str]] = {
    "not finite": (lambda tensors, card: tensors["edge.bias"].fill(np.nan), "not finite"),
    "wrong type": (lambda tensors, card: tensors.update({"edge.bias": np.zeros(3, np.float32)}), "F32"),
    "wrong shape": (lambda tensors, card: tensors.update({"server.bias": np.zeros(4, np.float16)}), "shape"),
    "another tensor": (lambda tensors, card: tensors.update({"x": np.zeros(4, np.float16)}), "unknown tensor 'x'"),
    "missing tensor": (lambda tensors, card: tensors.pop("unknown.centre"), "lacks tensor 'unknown.centre'"),
    "wide": (lambda tensors, card: tensors.update({"edge.weight": np.zeros((3, 20_000), np.float16)}), "shape"),
    "other features": (lambda tensors, card: tensors.update({"unknown.basis": np.zeros((4, 8), np.float16)}), "fit"),
    "name with a slash": (lambda tensors, card: card["classes"].__setitem__(0, "a/b"), "contains '/'"),
    "one class": (lambda tensors, card: card.update(classes=["a"]), "at least 2"),
    "many classes": (lambda tensors, card: card.update(classes=[f"c{i}" for i in range(1001)]), "at most 1000"),
    "infinite temperature": (lambda tensors, card: card["edge"].update(temperature=1e400), "edge.temperature"),
    "falling weights": (lambda tensors, card: card.update(weights=[[10, 1.0], [20, 0.5]]), "must not fall"),
    "unknown key": (lambda tensors, card: card.update(more=1), "more"),
    "another version": (lambda tensors, card: card.update(version=2), "version"),
}


@pytest.mark.parametrize("case", BAD)
def test_hostile_files_are_refused(pair: tuple[Model, Model], case: str, tmp_path: Path) -> None:
    path = tmp_path / "site.head"
    write_head(make_head(*pair), path)
    tensors, card = parts_of(path)
    change, message = BAD[case]
    change(tensors, card)  # type: ignore[operator]
    save_file(tensors, path, {"sagelink_head": json.dumps(card)})
    with pytest.raises(UsageError, match=message):
        read_head(path)


def test_files_that_are_no_heads_are_refused(pair: tuple[Model, Model], tmp_path: Path) -> None:
    path = tmp_path / "site.head"
    with pytest.raises(UsageError, match="does not exist"):
        read_head(path)
    with pytest.raises(UsageError, match="not a file"):
        read_head(tmp_path)
    write_head(make_head(*pair), path)
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-10], b"\xff" * 8 + content[8:], b"{}" * 50):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="damaged"):
            read_head(path)
    save_file({"x": np.zeros(3, np.float16)}, path)
    with pytest.raises(UsageError, match="no head"):
        read_head(path)
    with path.open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(UsageError, match="65000000 bytes"):
        read_head(path)
