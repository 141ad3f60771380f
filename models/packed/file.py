"""The file of `sagelink pack`: what an edge without PyTorch needs of both models.

One safetensors file. Tensors:

- `edge.weight` (C, F), `edge.bias` (C,) float32: the edge model's own classifier.
- For each set of features that classifiers on this edge may read (`token`, `mean` or `token+mean`): `READS.graph`
  uint8, the exported edge pass as ONNX (`models.runtimes.edge_export`); `READS.answers` (P,) int64 and `READS.units`
  (P, K) int64, what PyTorch computes from the pictures of `check_pictures`: with them a box tests its own runtime.
- `server.matrix`, `server.bias` float32: the patch embedding of the server model, where its weights were known.

Everything else is one JSON object in the metadata, under `sagelink_pack`: `PackCard`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sagelink.models.heads.head import Floats, Reads
from sagelink.models.heads.linear_classifier import LinearClassifier
from sagelink.models.model_contract import Importance
from sagelink.models.unit_grid import UnitGrid
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.types import Pixels

PACK = "models.pack"  # usual name of the file
_KEY = "sagelink_pack"
_CHECKS, _CHECK_CLASSES, _BLOCKS = 4, 16, 7  # drawn pictures, classes, and blocks of colour along a side
Tensors = Mapping[str, NDArray[np.generic]]


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GridCard(_Card):
    """`UnitGrid` in the file."""

    image_size: int = Field(ge=8, le=4096)
    patch_size: int = Field(ge=1, le=4096)
    interpolation: str = Field(max_length=20)
    crop_pct: float = Field(gt=0, le=1)

    def grid(self) -> UnitGrid:
        return UnitGrid(self.image_size, self.patch_size, self.interpolation, self.crop_pct)


class PackedEdgeCard(_Card):
    """The metadata of the edge model."""

    model: str = Field(max_length=200)
    grid: GridCard
    labels: tuple[str, ...] = Field(min_length=2, max_length=100_000)
    backbone: str = Field(pattern=r"^[0-9a-f]{16}$", description="Fingerprint of its weights without the classifier")
    width: int = Field(ge=1, le=16_384, description="Numbers in a token")
    importance: Importance
    reads: Reads = Field(description="Features that the model's own classifier reads")
    graphs: tuple[Reads, ...] = Field(min_length=1, description="Features that classifiers on this edge may read")


class PackedServerCard(_Card):
    """The metadata of the server model."""

    model: str = Field(max_length=200)
    grid: GridCard


class PackCard(_Card):
    """The metadata of the file."""

    version: int = Field(1, ge=1, le=1)
    edge: PackedEdgeCard
    server: PackedServerCard
    content: str = Field("", description="Fingerprint of the tensors")


class PackFile:
    """The file; its tensors are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError for a file that is missing, damaged, or of another kind or version."""
        self.path = path
        where = f"packed models {str(path)!r}"
        if not path.is_file():
            raise UsageError(f"{where}: there is no such file; accepted: {PACK} of a folder that `sagelink pack` wrote")
        try:
            with safe_open(path, "np") as file:
                self._names = frozenset(file.keys())
                self._text = _card_text(file)
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{where}: damaged, or no packed models: {error}; copy the file again") from None
        if self._text is None:
            raise UsageError(f"{where}: this is another kind of file; accepted: {PACK} of `sagelink pack`")
        try:
            self.card = PackCard.model_validate_json(self._text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "metadata"
            raise UsageError(
                f"{where}: {place}: {first['msg']}; pack again with the version of Sagelink that this box has"
            ) from None
        if digest_of((name, self._tensor(name)) for name in sorted(self._names)) != self.card.content:
            raise UsageError(f"{where}: its content is damaged; copy the file again")

    @property
    def classifier(self) -> LinearClassifier:
        """The edge model's own."""
        weight, bias = (np.asarray(self._tensor(f"edge.{name}"), np.float32) for name in ("weight", "bias"))
        return LinearClassifier(weight, bias, self.card.edge.reads)

    def graph(self, reads: Reads) -> bytes:
        """The exported edge pass for classifiers that read these features. Raises UsageError where there is none."""
        graphs = self.card.edge.graphs
        if reads not in graphs:
            raise UsageError(
                f"packed models {str(self.path)!r} are for heads that read {' or '.join(graphs)}, and this one reads "
                f"{reads}; accepted: a file of `sagelink pack --any-head`, or of `sagelink pack` with this head"
            )
        return self._tensor(f"{reads}.graph").tobytes()

    def expected(self, reads: Reads) -> tuple[list[int], NDArray[np.int64]]:
        """What PyTorch computed from the drawn pictures: classes, and the most important units (P, K)."""
        return self._tensor(f"{reads}.answers").tolist(), np.asarray(self._tensor(f"{reads}.units"), np.int64)

    @property
    def embedding(self) -> tuple[Floats, Floats] | None:
        """The server model's patch embedding; None where its weights were not known."""
        if "server.matrix" not in self._names:
            return None
        matrix, bias = (np.asarray(self._tensor(f"server.{name}"), np.float32) for name in ("matrix", "bias"))
        return matrix, bias

    def _tensor(self, name: str) -> NDArray[np.generic]:
        """Opens the file anew: an open one would count as memory of the process."""
        with safe_open(self.path, "np") as file:
            if _card_text(file) != self._text:
                raise UsageError(f"packed models {str(self.path)!r} were replaced; accepted: start the run again")
            return np.asarray(file.get_tensor(name))


def _card_text(file: safe_open) -> str | None:
    metadata: Mapping[str, str] = file.metadata() or {}  # type: ignore[no-untyped-call]
    return metadata.get(_KEY)


def pack_bytes(card: PackCard, tensors: Tensors) -> bytes:
    """The content of the file; names of tensors as in the first lines of this module."""
    plain = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    card = card.model_copy(update={"content": digest_of(plain.items())})
    return save(plain, {_KEY: card.model_dump_json()})


def digest_of(tensors: Iterable[tuple[str, NDArray[np.generic]]]) -> str:
    """A hash of tensors with their names, in this order: 64 hexadecimal digits."""
    state = hashlib.sha256()
    for name, values in tensors:
        state.update(f"{name} {values.dtype} {values.shape} ".encode() + values.tobytes())
    return state.hexdigest()


def check_pictures(size: int) -> Pixels:
    """Drawn pictures (P, size, size, 3), the same on each machine: blocks of colour, because scaling may differ."""
    coarse = np.random.default_rng(0).integers(0, 256, (_CHECKS, _BLOCKS, _BLOCKS, 3), np.uint8)
    place = np.arange(size) * _BLOCKS // size
    return coarse[:, place][:, :, place]


def check_classifier(reads: Reads, width: int) -> LinearClassifier:
    """A drawn classifier on tokens of `width` numbers, the same on each machine."""
    weight = np.random.default_rng(1).normal(size=(_CHECK_CLASSES, width * (2 if reads == "token+mean" else 1)))
    return LinearClassifier(weight.astype(np.float32), np.zeros(_CHECK_CLASSES, np.float32), reads)


def most_important(importance: Floats) -> NDArray[np.int64]:
    """The third of the units (B, N) with the greatest importance, (B, K)."""
    return np.argsort(importance, axis=1)[:, -max(1, importance.shape[1] // 3) :].astype(np.int64)
