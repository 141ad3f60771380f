"""Teaches a head: labelled pictures and a pair of models in, a `Head` and the figures of its cross-validation out.

1. The edge's features; what to read (class token, mean of the units) and how much to shrink, by cross-validation.
2. The server's features on evidence that the taught edge head chooses, at each size; the server's classifier alike.
3. Temperatures, the gate's threshold, fusion weights, how sure scenes are, and the rule for unknown pictures, all on
   held-out answers.

The figures are those of held-out whole pictures: no picture of a group is in the classifier that answers it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from sagelink.lab.probabilities import (
    Ids,
    Matrix,
    best_fusion_weight,
    best_overlap,
    best_temperature,
    calibration_error,
    expected_temperature,
    log_softmax,
    smoothed_loss,
)
from sagelink.lab.progress_bar import ShowProgress
from sagelink.lab.scene_calibration import fit_sharpness, play_sequences
from sagelink.lab.teach.discriminant import (
    SHRINKAGES,
    Discriminant,
    HeldOutAnswers,
    Linear,
    SigmoidDiscriminant,
    can_correct,
    corrected_held_out_logits,
    folds_of,
    held_out_logits,
    held_out_sigmoids,
)
from sagelink.lab.teach.features import EvidenceFeatures, FeatureMaker, Floats, View, available_reads
from sagelink.lab.teach.pictures import Pictures
from sagelink.lab.teach.unknown import fit_unknown
from sagelink.models.heads.apply import backbone_digest, readout, with_classes
from sagelink.models.heads.combinations import membership
from sagelink.models.heads.head import Head, HeadCard, HeadSide, Reads, SharpnessCard, SideCard
from sagelink.models.heads.linear_classifier import part_of
from sagelink.models.loading import Model
from sagelink.models.pair import Pair
from sagelink.stages.scene_tracker import STATE_S

Size: TypeAlias = int | None  # limit of a message in bytes; None: the full frame

DEFAULT_SIZES: tuple[Size, ...] = (500, 1000, 2000, None)
_NO_WEIGHT_BELOW = 8  # the weight of an answer falls to 0 at this fraction of the smallest taught size
_FULL_SHARE = 12  # bytes of a raw picture over those of a message that looks like the full frame
_GATE_LOSS = 0.005  # share of right answers that the gate may cost
_GATE_PROBS = np.linspace(0.6, 0.99, 40)  # the gate keeps edge answers above one of these probabilities


@dataclass(frozen=True, slots=True, eq=False)
class TaughtSide:
    """The classifier of a side, and held-out log-probabilities of the rows that it was taught on."""

    reads: Reads
    shrinkage: float
    temperature: float
    linear: Linear
    held_out: Matrix  # (R, C)

    def head_side(self, model: Model) -> HeadSide:
        weight, bias = (values.astype(np.float32) for values in (self.linear.weight, self.linear.bias))
        card = SideCard(
            model=model.name, backbone=backbone_digest(model), reads=self.reads, temperature=self.temperature
        )
        return HeadSide(card, weight, bias)


@dataclass(frozen=True, slots=True, eq=False)
class SizeResult:
    """Held-out answers at one size, of the whole pictures."""

    size: Size
    sent: np.ndarray  # (n,) bool: a message fits
    weight: float
    server: Matrix  # (n, C) log-probabilities; those of the edge where no message fits
    fused: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """The result of `teach`."""

    head: Head
    ids: Ids  # (n,) true classes of the pictures
    edge: Matrix  # (n, C) held-out log-probabilities of the edge
    by_size: list[SizeResult]
    gate_sends: float  # share of the pictures that the gate would send
    unknown_rate: float  # share of held-out pictures that the rule calls unknown


def teach(
    pictures: Pictures, pair: Pair, maker: FeatureMaker, sizes: Sequence[Size], seed: int, progress: ShowProgress
) -> Taught:
    """`sizes`: limits of the messages on which the server is taught, ascending, the full frame last."""
    count, ids = len(pictures), pictures.ids.astype(np.intp)
    answers = pictures.answers
    shows = pictures.shows()
    corrected = answers is None and can_correct(pictures.groups, shows)
    folds = folds_of(pictures.groups, np.concatenate([shows, ~shows], 1) if answers else shows, corrected)
    views = maker.views_of(pictures)
    owners = np.array([view.picture for view in views])
    whole = np.array([view.crop == 0 for view in views])
    edge_features = maker.edge(pictures, views, progress)
    progress("edge classifier", 0, 1)
    edge = _teach_side(edge_features, pictures, owners, folds, whole, corrected, available_reads(pair.edge))
    edge_side, edge_held = edge.head_side(pair.edge), edge.held_out[:count]

    digest = hashlib.sha256(edge_side.weight.tobytes()).hexdigest()[:16]
    taught_edge = with_classes(pair.edge, pictures.names, readout(edge_side), None)
    jobs = [(view, _sizes_of(view, sizes)) for view in views]
    evidence = maker.server(pictures, jobs, taught_edge, digest, progress)
    progress("server classifier", 0, 1)
    rows = np.array([view.picture for view in evidence.views])
    whole_rows = np.array([view.crop == 0 for view in evidence.views])
    reads = available_reads(pair.server)
    server = _teach_side(evidence.features, pictures, rows, folds, whole_rows, corrected, reads)
    server_side = server.head_side(pair.server)

    by_size, overlap = _fit_weights(edge_held, server.held_out, evidence, ids, pictures.groups, sizes)
    gate_bits, gate_sends = _fit_gate(edge_held, by_size, ids)
    servers = [(each.weight, each.server, each.sent) for each in by_size]
    sharpness = fit_sharpness(play_sequences(edge_held, servers, ids, *pictures.played(), forget_s=STATE_S))
    present = np.unique(ids, return_inverse=True)[1]  # of many combinations, some have no picture
    unknown = fit_unknown(edge_features.astype(np.float64), present[owners], folds[owners], whole, maker.noise())
    card = HeadCard(
        classes=pictures.names,
        combinations=answers,
        edge=edge_side.card,
        server=server_side.card,
        gate_bits=gate_bits,
        weights=tuple(_weights_by_bytes(by_size, evidence, pair.server)),
        overlap=overlap,
        sharpness=SharpnessCard(base=sharpness.base, age=sharpness.age, evidence=sharpness.evidence),
        unknown=unknown.card,
        card={
            "pictures": {pictures.classes[c]: int((ids == c).sum()) for c in np.unique(ids)},
            "groups": len(np.unique(pictures.groups)),
            "shrinkage": {"edge": edge.shrinkage, "server": server.shrinkage},
            "seed": seed,
            "edge_accuracy": _accuracy(edge_held, ids),
            "fused_accuracy": {size_name(each.size): _accuracy(each.fused, ids) for each in by_size},
            "calibration_error": {size_name(each.size): error_of(each.fused, ids) for each in by_size},
            "notes": [note[:300] for note in pictures.notes],
        },
    )
    head = Head(card, edge_side, server_side, unknown.rule)
    return Taught(head, ids, edge_held, by_size, gate_sends, unknown.held_out_rate)


def size_name(size: Size) -> str:
    return "full" if size is None else str(size)


def error_of(log_probs: Matrix, ids: Ids) -> float:
    """Expected calibration error of answers."""
    return round(calibration_error(np.exp(log_probs.max(1)), log_probs.argmax(1) == ids), 4)


def _accuracy(log_probs: Matrix, ids: Ids) -> float:
    return round(float((log_probs.argmax(1) == ids).mean()), 4)


def _sizes_of(view: View, sizes: Sequence[Size]) -> list[Size]:
    """All sizes of a whole picture; one of each crop, by turns: crops add variety, and coding costs time."""
    return [*sizes] if view.crop == 0 else [sizes[(view.picture + view.crop) % len(sizes)]]


def _teach_side(
    features: Floats,
    pictures: Pictures,
    rows: Ids,
    folds: Ids,
    whole: np.ndarray,
    corrected: bool,
    accepted: Sequence[Reads],
) -> TaughtSide:
    """Tries everything that a head can read with every shrinkage; the least held-out loss wins.

    `rows`: (R,) the picture of each row of features. `whole`: (R,) rows that count for the choice and the temperature;
    the others are only taught. `corrected`: see `discriminant.can_correct`.
    """
    ids, folds = pictures.ids.astype(np.intp)[rows], folds[rows]
    best: tuple[float, Reads, float, float, HeldOutAnswers] | None = None
    values = features.astype(np.float64)
    for reads in accepted:
        found = _held_out(part_of(values, reads), pictures, rows, folds, whole, corrected)
        for shrinkage, held_out in found.items():
            temperature = best_temperature(held_out.logits[whole], ids[whole])
            loss = smoothed_loss(log_softmax(held_out.logits[whole] / temperature), ids[whole])
            if best is None or loss < best[0]:
                best = (loss, reads, shrinkage, temperature, held_out)
    assert best is not None
    _, reads, shrinkage, temperature, held_out = best
    if held_out.temperature is not None:
        temperature = expected_temperature(temperature, held_out.temperature, len(pictures))
    if pictures.answers is None:
        discriminant = Discriminant(part_of(values, reads), ids, len(pictures.names), rows)
        linear = discriminant.linear(shrinkage, held_out.distance)
    else:
        linear = SigmoidDiscriminant(part_of(values, reads), pictures.shows()[rows]).linear(shrinkage)
    return TaughtSide(reads, shrinkage, temperature, linear, log_softmax(held_out.logits / temperature))


def _held_out(
    features: Matrix, pictures: Pictures, rows: Ids, folds: Ids, whole: np.ndarray, corrected: bool
) -> dict[float, HeldOutAnswers]:
    """By shrinkage: held-out logits (R, A) of the answers."""
    if pictures.answers is None:
        ids, classes = pictures.ids.astype(np.intp)[rows], len(pictures.names)
        if corrected:
            return corrected_held_out_logits(features, ids, folds, classes, SHRINKAGES, rows, whole)
        return held_out_logits(features, ids, folds, classes, SHRINKAGES)
    matrix = membership(len(pictures.names), pictures.answers).T
    found = held_out_sigmoids(features, pictures.shows()[rows], folds, SHRINKAGES)
    return {shrinkage: HeldOutAnswers(logits @ matrix) for shrinkage, logits in found.items()}


def _fit_weights(
    edge: Matrix, server: Matrix, evidence: EvidenceFeatures, ids: Ids, groups: Ids, sizes: Sequence[Size]
) -> tuple[list[SizeResult], float]:
    """Held-out answers by size, with fusion weights that do not fall as messages grow; and the overlap of errors."""
    found: list[tuple[Size, np.ndarray, float, Matrix]] = []
    weight = 0.0
    for size in sizes:
        answers, sent = edge.copy(), np.zeros(len(ids), bool)
        for row, (view, at) in enumerate(zip(evidence.views, evidence.sizes, strict=True)):
            if view.crop == 0 and at == size:
                answers[view.picture], sent[view.picture] = server[row], True
        if sent.any():
            weight = max(weight, best_fusion_weight(edge[sent], answers[sent], ids[sent], groups[sent]))
        found.append((size, sent, weight, answers))
    sums = np.concatenate([edge[sent] + weight * answers[sent] for _, sent, weight, answers in found])
    weights = np.concatenate([np.full(sent.sum(), weight) for _, sent, weight, _ in found])
    overlap = best_overlap(sums, weights, np.concatenate([ids[sent] for _, sent, _, _ in found]), len(ids))
    results = []
    for size, sent, weight, answers in found:
        fused = log_softmax((edge + weight * answers) / (1 + overlap * weight))
        results.append(SizeResult(size, sent, weight, answers, np.where(sent[:, None], fused, edge)))
    return results, overlap


def _fit_gate(edge: Matrix, by_size: Sequence[SizeResult], ids: Ids) -> tuple[float, float]:
    """Threshold of the min-entropy gate in bits, and the share of pictures that it sends.

    It keeps as many edge answers as it can without losing right answers, measured at the smallest size.
    """
    fused, confidence = by_size[0].fused, np.exp(edge.max(1))
    goal = (fused.argmax(1) == ids).mean() - _GATE_LOSS
    for prob in _GATE_PROBS:
        sends = confidence < prob
        right = np.where(sends, fused.argmax(1), edge.argmax(1)) == ids
        if right.mean() >= goal:
            break
    # With many classes half a bit is 70 %; with two classes no answer has more than one bit.
    return float(min(-math.log2(prob), 0.8 * math.log2(edge.shape[1]))), float(sends.mean())


def _weights_by_bytes(
    by_size: Sequence[SizeResult], evidence: EvidenceFeatures, server: Model
) -> Iterator[tuple[int, float]]:
    """Rising message bytes with the fusion weight of their answers."""
    first = by_size[0].size or _full_bytes(server)
    yield max(1, first // _NO_WEIGHT_BELOW), 0.0
    last = 0
    for result in by_size:
        found = [
            size
            for size, at in zip(evidence.message_bytes, evidence.sizes, strict=True)
            if at == result.size and size is not None
        ]
        size = max(_full_bytes(server), last + 1) if result.size is None else int(np.median(found or [result.size]))
        if size > max(last, first // _NO_WEIGHT_BELOW):
            yield size, result.weight
            last = size


def _full_bytes(server: Model) -> int:
    return server.grid.image_size**2 * 3 // _FULL_SHARE
