"""Chooses the runtime and the precision of the edge model: what the configuration names, or the fastest that agrees.

A choice takes seconds, so it is measured once for a model on a machine and cached. A compiled runtime agrees with
PyTorch if, on calibration pictures, the answers are the same on at least 98 % of them and the third of the units with
the greatest importance overlaps by at least 90 %. The calibration pictures are the user's own, in
`edge.calibration`; without them only fp32 is tried, on drawn pictures.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from sagelink.models import vit
from sagelink.models.compiled import COMPILERS, CompiledPass, Precision, UnusableError, version_of
from sagelink.models.edge_export import ExportError, export_name
from sagelink.models.loading import Model
from sagelink.models.preprocess import make_picture
from sagelink.pipeline.config import EdgeModelConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.user_cache import cache_folder

log = logging.getLogger(__name__)

CALIBRATION_PICTURES = 64
LEAST_SAME_ANSWERS = 0.98
LEAST_SAME_UNITS = 0.90
_LEAST_GAIN = 0.95  # of the time of PyTorch; for less, its runtime stays
_ROUNDS = 7
_DRAWN_PICTURES = 8
_MOST_CHOICES = 100
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """What `auto` found on this machine; `milliseconds` by runtime and precision."""

    model: str
    runtime: str
    precision: Precision
    milliseconds: dict[str, float]


def with_runtime(edge: Model, config: EdgeModelConfig, importance: vit.Importance, threads: int) -> Model:
    """The edge model, computed by the runtime that `config` names or that `auto` finds. Raises UsageError."""
    if config.runtime == "torch":
        if config.precision == "bf16":
            raise UsageError(
                "edge.precision: runtime torch computes in fp32; accepted: bf16 with edge.runtime=openvino"
            )
        return edge
    if config.runtime != "auto":
        return replace(edge, compiled=_named(edge, config, importance, threads))
    if torch.device(config.device).type != "cpu":
        return edge
    installed = [name for name, compiler in COMPILERS.items() if version_of(compiler)]
    if not installed:
        if config.precision == "bf16":
            raise UsageError(
                "edge.precision: bf16 needs the package openvino, which is not installed; accepted: "
                "pip install 'sagelink[openvino]', or edge.precision=fp32"
            )
        return edge
    path = cache_folder("runtimes") / f"{_choice_key(edge, config, importance, threads, installed)}.json"
    choice = _read(path)
    if choice is None:
        choice = _measure(edge, config, importance, threads, installed)
        _write(path, choice)
    log.info("model=%s runtime=%s precision=%s ms=%s", edge.name, choice.runtime, choice.precision, choice.milliseconds)
    if choice.runtime == "torch":
        return edge
    chosen = CompiledPass(choice.runtime, choice.precision, threads, edge)
    try:
        chosen.prepare(edge.vit, importance)
    except (ExportError, UnusableError) as error:
        log.warning("model=%s runtime=%s event=not_used reason=%r", edge.name, choice.runtime, str(error))
        return edge
    return replace(edge, compiled=chosen)


def _named(edge: Model, config: EdgeModelConfig, importance: vit.Importance, threads: int) -> CompiledPass:
    """The pass of the runtime that the configuration names; what is missing is an error."""
    name, compiler = config.runtime, COMPILERS[config.runtime]
    if torch.device(config.device).type != "cpu":
        raise UsageError(f"edge.runtime: {name} computes on the CPU, but edge.device is {config.device!r}")
    if version_of(compiler) is None:
        raise UsageError(
            f"edge.runtime: the package {name} is not installed; accepted: pip install 'sagelink[{compiler.extra}]', "
            f"or edge.runtime=auto"
        )
    try:
        capable = compiler.precisions()
        if config.precision == "bf16" and "bf16" not in capable:
            raise UsageError(
                f"edge.precision: {name} cannot compute bf16 on this CPU; accepted: {', '.join(capable)} or auto"
            )
        for precision in _wanted(config, capable):
            candidate = CompiledPass(name, precision, threads, edge)
            candidate.prepare(edge.vit, importance)
            if precision == config.precision or _agrees(edge, candidate, importance, _pictures(edge, config)):
                return candidate
            log.warning("model=%s runtime=%s precision=%s event=disagrees", edge.name, name, precision)
    except (ExportError, UnusableError) as error:
        raise UsageError(
            f"edge.runtime: model {edge.name!r} cannot run in {name}: {error}; accepted: edge.runtime=torch"
        ) from None
    raise UsageError(f"edge.runtime: {name} gives other answers than PyTorch; accepted: edge.runtime=torch")


def _wanted(config: EdgeModelConfig, capable: Sequence[Precision]) -> list[Precision]:
    """Precisions to try, the fastest first. `auto` takes bf16 only if the user's pictures can confirm it."""
    if config.precision != "auto":
        return [config.precision] if config.precision in capable else []
    return ["bf16", "fp32"] if "bf16" in capable and config.calibration is not None else ["fp32"]


def _measure(
    edge: Model, config: EdgeModelConfig, importance: vit.Importance, threads: int, installed: Sequence[str]
) -> RuntimeChoice:
    log.info("model=%s event=measure_runtimes candidates=torch,%s", edge.name, ",".join(installed))
    pictures = _pictures(edge, config)
    candidates = {}
    for name in installed:
        for precision in _wanted(config, COMPILERS[name].precisions()):
            candidate = CompiledPass(name, precision, threads, edge)
            try:
                candidate.prepare(edge.vit, importance)
                agrees = _agrees(edge, candidate, importance, pictures)
            except (ExportError, UnusableError) as error:
                log.warning("model=%s runtime=%s event=not_used reason=%r", edge.name, name, str(error))
                break
            if agrees:
                candidates[f"{name} {precision}"] = candidate
            else:
                log.warning("model=%s runtime=%s precision=%s event=disagrees", edge.name, name, precision)
    if config.precision == "bf16" and not candidates:
        raise UsageError(
            f"edge.precision: none of {', '.join(installed)} computes bf16 on this CPU; accepted: fp32 or auto"
        )
    medians = _milliseconds(edge, candidates, importance, pictures)
    fastest = min(medians, key=medians.__getitem__)
    if fastest not in candidates or medians[fastest] > _LEAST_GAIN * medians["torch fp32"]:
        return RuntimeChoice(edge.name, "torch", "fp32", medians)
    found = candidates[fastest]
    return RuntimeChoice(edge.name, found.runtime, found.precision, medians)


def _milliseconds(
    edge: Model, candidates: Mapping[str, CompiledPass], importance: vit.Importance, pictures: np.ndarray
) -> dict[str, float]:
    """Median time of one pass, by runtime and precision. Rounds alternate, because other work shares the machine."""
    times: dict[str, list[float]] = {name: [] for name in ("torch fp32", *candidates)}
    for number in range(_ROUNDS):
        picture = pictures[number % len(pictures)][None]
        for name, measured in times.items():
            began = time.perf_counter()
            replace(edge, compiled=candidates.get(name)).score(picture, importance)
            measured.append((time.perf_counter() - began) * 1e3)
    return {name: round(statistics.median(measured[1:]), 1) for name, measured in times.items()}


def _agrees(edge: Model, candidate: CompiledPass, importance: vit.Importance, pictures: np.ndarray) -> bool:
    """Whether the answers and the most important units of a compiled pass are those of PyTorch."""
    reference, compiled = (replace(edge, compiled=computed) for computed in (None, candidate))
    same, overlap = [], []
    for picture in pictures:
        one, other = (model.score(picture[None], importance) for model in (reference, compiled))
        same.append(bool(one.logits.argmax() == other.logits.argmax()))
        count = max(1, edge.grid.units // 3)
        best = [set(features.importance[0].topk(count).indices.tolist()) for features in (one, other)]
        overlap.append(len(best[0] & best[1]) / count)
    log.info(
        "model=%s runtime=%s precision=%s same_answers=%.3f same_units=%.3f pictures=%d",
        edge.name,
        candidate.runtime,
        candidate.precision,
        np.mean(same),
        np.mean(overlap),
        len(pictures),
    )
    return bool(np.mean(same) >= LEAST_SAME_ANSWERS and np.mean(overlap) >= LEAST_SAME_UNITS)


def _pictures(edge: Model, config: EdgeModelConfig) -> np.ndarray:
    """Calibration pictures (n, S, S, 3) uint8: from the folder, or drawn. Raises UsageError."""
    size = edge.grid.image_size
    if config.calibration is None:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (_DRAWN_PICTURES, 9, 9, 3), np.uint8)
        return np.stack([make_picture(picture, size, "squash", "bicubic") for picture in coarse])
    files = _picture_files(config.calibration)
    chosen = [files[i * len(files) // CALIBRATION_PICTURES] for i in range(CALIBRATION_PICTURES)]
    return np.stack([*_read_pictures(chosen, size, edge.grid.interpolation)])


def _picture_files(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    except OSError as error:
        raise UsageError(f"edge.calibration: folder {str(folder)!r} cannot be read: {error.strerror}") from None
    if len(files) < CALIBRATION_PICTURES:
        raise UsageError(
            f"edge.calibration: folder {str(folder)!r} has {len(files)} pictures; accepted: at least "
            f"{CALIBRATION_PICTURES} ({', '.join(sorted(_SUFFIXES))})"
        )
    return files


def _read_pictures(files: Sequence[Path], size: int, interpolation: str) -> Iterator[np.ndarray]:
    for path in files:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UsageError(f"edge.calibration: picture {str(path)!r} cannot be read: {error}") from None
        yield make_picture(pixels, size, "squash", interpolation)


def _choice_key(
    edge: Model, config: EdgeModelConfig, importance: vit.Importance, threads: int, installed: Sequence[str]
) -> str:
    """A hash of all that a choice depends on: the model, the machine, the packages, the settings, the pictures."""
    folder = config.calibration
    pictures = [] if folder is None else [(path.name, path.stat().st_size) for path in _picture_files(folder)]
    versions = {name: version_of(COMPILERS[name]) for name in installed} | {"torch": torch.__version__}
    parts = (export_name(edge, importance), threads, config.precision, versions, cpu_name(), str(folder), pictures)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def cpu_name() -> str:
    """The name of the processor, as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags", "Features"))]
    return " ".join(named[:2]) or platform.machine()


def cached_choices() -> list[RuntimeChoice]:
    """All choices in the cache, the newest first."""
    try:
        paths = sorted(cache_folder("runtimes").glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []
    return [choice for path in paths if (choice := _read(path))]


def _read(path: Path) -> RuntimeChoice | None:
    """A cached choice; None if there is none, or if it is damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        choice = RuntimeChoice(**stored)
        known = choice.runtime == "torch" or choice.runtime in COMPILERS
        return choice if known and choice.precision in ("fp32", "bf16") else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        log.warning("event=choice_damaged path=%s action=measure_again", path)
        return None


def _write(path: Path, choice: RuntimeChoice) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(choice)), encoding="utf-8")
        partial.replace(path)
        newest = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in newest[_MOST_CHOICES:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("event=choice_not_cached path=%s reason=%r", path, error.strerror)
    finally:
        partial.unlink(missing_ok=True)
