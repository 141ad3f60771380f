"""The head file: classifiers for the user's own classes, for both frozen backbones of a pair (`sagelink teach`).

One safetensors file. Tensors, in half precision:

- `edge.weight`, `server.weight`: (C, F); `edge.bias`, `server.bias`: (C,). F is D, or 2 D if the head reads the class
  token and the mean of the units (`models.heads.readout`).
  A multi-label head has one row for each class; its answers are combinations of them (`models.heads.combinations`).
- `unknown.basis`: (R, F), `unknown.centre`: (F,), `unknown.means`: (C, R): see `UnknownRule`. A multi-label head
  has any number of means.

Everything else is one JSON object in the metadata, under `sagelink_head`: `HeadCard`. A head file may come from
anywhere, so `read_head` checks every size before it allocates, and every number.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save

from sagelink.models.heads.combinations import fault_of_class, membership, names_of
from sagelink.pipeline.answers import UNKNOWN, SeveralClasses, Sharpness, TaughtClasses, fusion_weight
from sagelink.pipeline.errors import UsageError, suggest
from sagelink.pipeline.files.output_files import cannot_write

Floats: TypeAlias = NDArray[np.float32]
Reads = Literal["token", "mean", "token+mean"]  # features of the final tokens: see `models.heads.readout`

MAX_CLASSES = 1000
_MAX_NAME = 100  # characters
_MAX_FEATURES = 16_384
MAX_HEAD_BYTES = 64_000_000
FINGERPRINT_BYTES = 16
_MAX_CARD_BYTES = 1_000_000
_KEY = "sagelink_head"
_FORBIDDEN = '/\\<>"'  # paths and HTML: names become folders, topics and page content

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Weight = tuple[Annotated[int, Field(gt=0, le=1 << 30)], Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]]


class SideCard(BaseModel):
    """The metadata of one side."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(max_length=200, description="Name of the model that was taught")
    backbone: str = Field(pattern=r"^[0-9a-f]{16}$", description="Fingerprint of its weights without the classifier")
    reads: Reads
    temperature: float = Field(gt=0, le=1000, allow_inf_nan=False, description="The logits are divided by it")


class UnknownCard(BaseModel):
    """The numbers of `UnknownRule`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    residual: float = Field(ge=0, allow_inf_nan=False)
    threshold: _Finite
    reads: Reads = Field("token+mean", description="Features of the edge that the rule reads")


class SharpnessCard(BaseModel):
    """The numbers of `sagelink.pipeline.answers.Sharpness`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: float = Field(1.0, gt=0, le=100, allow_inf_nan=False)
    age: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    evidence: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)


class HeadCard(BaseModel):
    """The metadata of a head file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(1, ge=1, le=1)
    classes: tuple[str, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    combinations: tuple[tuple[int, ...], ...] | None = Field(
        None,
        min_length=2,
        max_length=MAX_CLASSES,
        description="Of a multi-label head: the answers, as rising class numbers; empty: one class holds",
    )
    edge: SideCard
    server: SideCard
    gate_bits: float = Field(ge=0, allow_inf_nan=False, description="Threshold of the min-entropy gate")
    weights: tuple[_Weight, ...] = Field(
        min_length=1, max_length=64, description="Fusion weight of the server's answer by message bytes, rising"
    )
    overlap: float = Field(
        0.0, ge=0, le=1, description="How alike the errors of both sides are: 0, independent; 1, the same"
    )
    sharpness: SharpnessCard = Field(
        default_factory=SharpnessCard,
        description="How sure the verdicts on scenes are; a file without it: as they come",
    )
    unknown: UnknownCard | None = None
    card: dict[str, JsonValue] = Field(default_factory=dict, description="Model card: what was taught, and how well")

    @field_validator("classes")
    @classmethod
    def _good_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if fault := fault_of_names(names):
            raise ValueError(fault)
        return names

    @model_validator(mode="after")
    def _good_combinations(self) -> HeadCard:
        if self.combinations is None:
            if len(self.classes) < 2:
                raise ValueError("classes: at least 2 are needed")
            return self
        numbers = set(range(len(self.classes)))
        for chosen in self.combinations:
            if list(chosen) != sorted(set(chosen) & numbers):
                raise ValueError(f"combinations: {chosen}: accepted: rising numbers of classes")
        if len(set(self.combinations)) < len(self.combinations):
            raise ValueError("combinations: one is listed twice")
        for name in self.classes:
            if fault := fault_of_class(name):
                raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _weights_rise(self) -> HeadCard:
        sizes, weights = zip(*self.weights, strict=True)
        if list(sizes) != sorted(set(sizes)) or list(weights) != sorted(weights):
            raise ValueError("weights: bytes must rise, and weights must not fall")
        return self


def fault_of_names(names: Sequence[str]) -> str | None:
    """Why these cannot be the names of classes; None if they can."""
    seen: dict[str, str] = {}
    for name in names:
        if not name or name != name.strip() or len(name) > _MAX_NAME:
            return f"class name {name!r}: accepted: 1 to {_MAX_NAME} characters, without spaces at the ends"
        if name.startswith("."):
            return f"class name {name!r} starts with a point; accepted: another start, because names become folders"
        for character in name:
            if character in _FORBIDDEN or unicodedata.category(character)[0] == "C":
                return f"class name {name!r} contains {character!r}; accepted: no control characters, no {_FORBIDDEN}"
        folded = unicodedata.normalize("NFKC", name).casefold()
        if folded == UNKNOWN:
            return f"class name {name!r} is reserved for pictures of none of the classes; accepted: another name"
        if folded in seen:
            return f"class names {seen[folded]!r} and {name!r} are too alike; accepted: names that differ in letters"
        seen[folded] = name
    return None


@dataclass(frozen=True, slots=True, eq=False)
class HeadSide:
    """The classifier of one side."""

    card: SideCard
    weight: Floats  # (C, F)
    bias: Floats  # (C,)


@dataclass(frozen=True, slots=True, eq=False)
class UnknownRule:
    """Rejects pictures that are none of the classes, by features of the edge (`UnknownCard.reads`).

    The score is the squared distance to the nearest class mean in whitened features. The whitening is a factor model of
    the covariance within classes: R directions with a variance each, and one variance for all others. A picture with a
    score above the threshold is unknown.
    """

    basis: Floats  # (R, F), each row an orthonormal direction divided by its standard deviation
    centre: Floats  # (F,) mean of the features
    means: Floats  # (C, R) class means in the basis
    residual: float  # 1 / variance of the other directions
    scale: Floats  # (R,) lengths of the rows of the basis
    threshold: float
    reads: Reads = "token+mean"

    @classmethod
    def from_tensors(cls, basis: Floats, centre: Floats, means: Floats, card: UnknownCard) -> UnknownRule:
        lengths = np.linalg.norm(basis, axis=1).astype(np.float32)
        return cls(basis, centre, means, card.residual, lengths, card.threshold, card.reads)

    def scores(self, features: Floats) -> Floats:
        """(B, F) to (B,)."""
        centred = features - self.centre
        projected = centred @ self.basis.T  # (B, R)
        near = np.stack([np.square(projected - mean).sum(1) for mean in self.means]).min(0)
        inside = np.square(projected / np.maximum(self.scale, 1e-12)).sum(1)
        rest = np.maximum(np.square(centred).sum(1) - inside, 0)
        return np.asarray(near + self.residual * rest, np.float32)

    def rejects(self, features: Floats) -> NDArray[np.bool_]:
        """(B, F) to (B,)."""
        return np.asarray(self.scores(features) > self.threshold)


@dataclass(frozen=True, eq=False)
class Head:
    """A loaded head file."""

    card: HeadCard
    edge: HeadSide
    server: HeadSide
    unknown: UnknownRule | None = None
    content: bytes | None = None  # of the file that it was read from

    def file_content(self) -> bytes:
        """The content of the head file."""
        return self.content or head_bytes(self)

    @cached_property
    def taught(self) -> TaughtClasses:
        """What a frame that is scored with this head carries."""
        card = self.card
        several = None if card.combinations is None else SeveralClasses(card.classes, card.combinations)
        sharpness = Sharpness(card.sharpness.base, card.sharpness.age, card.sharpness.evidence)
        fingerprint = fingerprint_of(self.file_content())
        return TaughtClasses(fingerprint, self.classes, card.gate_bits, card.overlap, card.weights, several, sharpness)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the answers: the classes, or the combinations of them."""
        card = self.card
        return card.classes if card.combinations is None else names_of(card.classes, card.combinations)

    def answering(self, side: HeadSide) -> HeadSide:
        """A side with one row for each answer."""
        if self.card.combinations is None:
            return side
        matrix = membership(len(self.card.classes), self.card.combinations)
        return HeadSide(side.card, matrix @ side.weight, matrix @ side.bias)

    def fusion_weight(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of the server's answers to messages of these sizes in bytes."""
        return fusion_weight(self.card.weights, sizes)


def fingerprint_of(content: bytes) -> bytes:
    """Names a head file by its content: BLAKE2b, FINGERPRINT_BYTES bytes."""
    return hashlib.blake2b(content, digest_size=FINGERPRINT_BYTES, person=b"sagelink-head").digest()


def head_bytes(head: Head) -> bytes:
    """The content of the head file. Raises UsageError where a number is not finite in half precision."""
    tensors = {
        f"{name}.{part}": value
        for name, side in (("edge", head.edge), ("server", head.server))
        for part, value in (("weight", side.weight), ("bias", side.bias))
    }
    if head.unknown is not None:
        rule = head.unknown
        tensors |= {"unknown.basis": rule.basis, "unknown.centre": rule.centre, "unknown.means": rule.means}
    # safetensors writes the memory of an array as it lies, whatever its strides say.
    halves = {key: np.ascontiguousarray(value, np.float16) for key, value in tensors.items()}
    for key, value in halves.items():
        if not np.isfinite(value).all():
            raise UsageError(f"the taught classifier has numbers in {key!r} that half precision cannot hold")
    return save(halves, {_KEY: head.card.model_dump_json(exclude_none=True)})


def write_head(head: Head, path: Path) -> int:
    """Writes the file in one step, so an interrupted write leaves the old file. Returns its size in bytes.

    Raises SagelinkError, such as for a full disk; the old file then stays.
    """
    content = head_bytes(head)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, OSError(error.errno, error.strerror)) from None
    finally:
        partial.unlink(missing_ok=True)
    return len(content)


def is_head_file(path: Path) -> bool:
    """Whether the file is a head, of any version, perhaps damaged: its first tensor header says so."""
    try:
        with safe_open(path, "np") as file:
            return _KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_head(path: Path) -> Head:
    """Raises UsageError for a file that is missing, damaged, too large, or holds anything unexpected."""
    where = f"head file {str(path)!r}"
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UsageError(f"{where} is not a file; accepted: a file that `sagelink teach` wrote")
        if size > MAX_HEAD_BYTES:
            raise UsageError(f"{where} has {size} bytes; accepted: up to {MAX_HEAD_BYTES}")
        content = path.read_bytes()
    except FileNotFoundError:
        near = suggest(path.name, [each.name for each in path.parent.glob("*.head")])
        raise UsageError(f"{where} does not exist{near}; `sagelink teach` writes such files") from None
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror}") from None
    return parse_head(content, where)


def parse_head(content: bytes, where: str) -> Head:
    """The head in the bytes of a file. `where`: names them in errors. Raises UsageError as `read_head` does."""
    if len(content) > MAX_HEAD_BYTES:
        raise UsageError(f"{where} has {len(content)} bytes; accepted: up to {MAX_HEAD_BYTES}")
    card, tensors = _parse(content, where)
    for key, value in tensors.items():
        if not np.isfinite(value).all():
            raise UsageError(f"{where}: {key!r} holds numbers that are not finite")
    edge, server = (
        HeadSide(side, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
        for name, side in (("edge", card.edge), ("server", card.server))
    )
    rule = None
    if card.unknown is not None:
        basis, centre, means = (tensors[f"unknown.{part}"] for part in ("basis", "centre", "means"))
        rule = UnknownRule.from_tensors(basis, centre, means, card.unknown)
    return Head(card, edge, server, rule, content)


def _parse(content: bytes, where: str) -> tuple[HeadCard, dict[str, Floats]]:
    """The card and the tensors; no tensor is converted before all types and shapes are right."""
    try:
        parts = dict(deserialize(content))  # type: ignore[no-untyped-call]
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
    except (SafetensorError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{where} is damaged or not a head file: {error}; accepted: a file of `sagelink teach`"
        ) from None
    card = _read_card(metadata, where)
    shapes = _shapes(card)
    if parts.keys() != shapes.keys():
        odd = min(parts.keys() ^ shapes.keys())
        raise UsageError(f"{where} {'lacks' if odd in shapes else 'holds an unknown'} tensor {odd!r}")
    _check_shapes({key: (tuple(part["shape"]), str(part["dtype"])) for key, part in parts.items()}, shapes, where)
    return card, {
        key: np.frombuffer(part["data"], "<f2").reshape(part["shape"]).astype(np.float32) for key, part in parts.items()
    }


def _read_card(metadata: Mapping[str, str], where: str) -> HeadCard:
    text = metadata.get(_KEY)
    if text is None:
        raise UsageError(f"{where} is a safetensors file but no head; accepted: a file that `sagelink teach` wrote")
    if len(text) > _MAX_CARD_BYTES:
        raise UsageError(f"{where}: its metadata has {len(text)} bytes; accepted: up to {_MAX_CARD_BYTES}")
    try:
        return HeadCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "metadata"
        raise UsageError(f"{where}: {place}: {first['msg']}") from None


_Shape = tuple[int | None, ...]  # None: any size up to _MAX_FEATURES


def _shapes(card: HeadCard) -> dict[str, _Shape]:
    count, means = len(card.classes), None if card.combinations else len(card.classes)
    shapes: dict[str, _Shape] = {}
    for name in ("edge", "server"):
        shapes |= {f"{name}.weight": (count, None), f"{name}.bias": (count,)}
    if card.unknown is not None:
        shapes |= {"unknown.basis": (None, None), "unknown.centre": (None,), "unknown.means": (means, None)}
    return shapes


def _check_shapes(found: Mapping[str, tuple[tuple[int, ...], str]], expected: Mapping[str, _Shape], where: str) -> None:
    for key, (shape, dtype) in found.items():
        fits = len(shape) == len(expected[key]) and all(
            0 < size <= _MAX_FEATURES if wanted is None else size == wanted
            for size, wanted in zip(shape, expected[key], strict=True)
        )
        if dtype != "F16" or not fits:
            accepted = "x".join("n" if size is None else str(size) for size in expected[key])
            raise UsageError(f"{where}: {key!r} is {dtype} of shape {shape}; accepted: F16 of shape {accepted}")
    if "unknown.basis" in found:
        rank, width = found["unknown.basis"][0]
        if found["unknown.centre"][0] != (width,) or found["unknown.means"][0][1] != rank:
            raise UsageError(f"{where}: the shapes of its 'unknown' tensors do not fit each other")
