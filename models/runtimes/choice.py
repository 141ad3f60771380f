"""Chooses the runtime and the precision of a model: what the configuration names, or the fastest that agrees.

A choice takes seconds, so it is measured once for a model on a machine and cached. A compiled runtime agrees with
PyTorch if, on calibration pictures, the answers are the same on at least 98 % of them and, at the edge, the third of
the units with the greatest importance overlaps by at least 90 %. The calibration pictures are the user's own, in
`edge.calibration` or `server.calibration`; without them only fp32 is tried, on drawn pictures.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from sagelink.models.loading import Model
from sagelink.models.preprocess import make_picture
from sagelink.models.runtimes.compilers import COMPILERS, Precision, UnusableError, version_of
from sagelink.models.runtimes.export_cache import ExportError, write_cached
from sagelink.models.runtimes.trials import Trial
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.documents import parse_json, read_text
from sagelink.pipeline.files.user_cache import cache_folder
from sagelink.pipeline.types import Pixels

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

    role: str  # edge or server
    model: str
    runtime: str
    precision: Precision
    milliseconds: dict[str, float]


def with_runtime(trial: Trial, config: ModelConfig) -> Model:
    """The model of a trial in the runtime that `config` names, or that `auto` finds. Raises UsageError."""
    model, role = trial.model, trial.role
    if config.runtime == "torch":
        if config.precision == "bf16":
            raise UsageError(
                f"{role}.precision: runtime torch computes in fp32; accepted: bf16 with {role}.runtime=openvino"
            )
        return model
    if config.runtime != "auto":
        return _named(trial, config)
    if torch.device(config.device).type != "cpu":
        return model
    installed = [name for name, compiler in COMPILERS.items() if version_of(compiler)]
    if not installed:
        if config.precision == "bf16":
            raise UsageError(
                f"{role}.precision: bf16 needs the package openvino, which is not installed; accepted: "
                f"pip install 'sagelink[openvino]', or {role}.precision=fp32"
            )
        return model
    path = cache_folder("runtimes") / f"{_choice_key(trial, config, installed)}.json"
    choice = _read(path)
    if choice is None:
        choice = _measure(trial, config, installed)
        write_cached(path, json.dumps(asdict(choice)).encode(), _MOST_CHOICES)
    log.info(
        "role=%s model=%s runtime=%s precision=%s ms=%s",
        role,
        model.name,
        choice.runtime,
        choice.precision,
        choice.milliseconds,
    )
    if choice.runtime == "torch":
        return model
    try:
        return trial.computed(choice.runtime, choice.precision)
    except (ExportError, UnusableError) as error:
        _log_unused(trial, choice.runtime, error)
        return model


def _named(trial: Trial, config: ModelConfig) -> Model:
    """The model in the runtime that the configuration names; what is missing is an error."""
    name, compiler, role = config.runtime, COMPILERS[config.runtime], trial.role
    if torch.device(config.device).type != "cpu":
        raise UsageError(f"{role}.runtime: {name} computes on the CPU, but {role}.device is {config.device!r}")
    if version_of(compiler) is None:
        raise UsageError(
            f"{role}.runtime: the package {name} is not installed; accepted: pip install "
            f"'sagelink[{compiler.extra}]', or {role}.runtime=auto"
        )
    try:
        capable = compiler.precisions()
        if config.precision == "bf16" and "bf16" not in capable:
            raise UsageError(
                f"{role}.precision: {name} cannot compute bf16 on this CPU; accepted: {', '.join(capable)} or auto"
            )
        for precision in _wanted(config, capable):
            candidate = trial.computed(name, precision)
            if precision == config.precision or _agrees(trial, candidate, f"{name} {precision}", config):
                return candidate
    except (ExportError, UnusableError) as error:
        raise UsageError(
            f"{role}.runtime: model {trial.model.name!r} cannot run in {name}: {error}; accepted: {role}.runtime=torch"
        ) from None
    raise UsageError(f"{role}.runtime: {name} gives other answers than PyTorch; accepted: {role}.runtime=torch")


def _wanted(config: ModelConfig, capable: Sequence[Precision]) -> list[Precision]:
    """Precisions to try, the fastest first. `auto` takes bf16 only if the user's pictures can confirm it."""
    if config.precision != "auto":
        return [config.precision] if config.precision in capable else []
    return ["bf16", "fp32"] if "bf16" in capable and config.calibration is not None else ["fp32"]


def _measure(trial: Trial, config: ModelConfig, installed: Sequence[str]) -> RuntimeChoice:
    role, name = trial.role, trial.model.name
    log.info("role=%s model=%s event=measure_runtimes candidates=torch,%s", role, name, ",".join(installed))
    candidates: dict[tuple[str, Precision], Model] = {}
    for runtime in installed:
        for precision in _wanted(config, COMPILERS[runtime].precisions()):
            try:
                candidate = trial.computed(runtime, precision)
                if _agrees(trial, candidate, f"{runtime} {precision}", config):
                    candidates[runtime, precision] = candidate
            except (ExportError, UnusableError) as error:
                _log_unused(trial, runtime, error)
                break
    if config.precision == "bf16" and not candidates:
        raise UsageError(
            f"{role}.precision: none of {', '.join(installed)} computes bf16 on this CPU; accepted: fp32 or auto"
        )
    medians = _milliseconds(trial, {("torch", "fp32"): trial.model, **candidates}, _pictures(trial, config))
    fastest = min(medians, key=medians.__getitem__)
    if medians[fastest] > _LEAST_GAIN * medians["torch", "fp32"]:
        fastest = "torch", "fp32"
    named = {f"{runtime} {precision}": median for (runtime, precision), median in medians.items()}
    return RuntimeChoice(role, name, *fastest, named)


def _log_unused(trial: Trial, runtime: str, error: Exception) -> None:
    log.warning(
        "role=%s model=%s runtime=%s event=not_used reason=%r", trial.role, trial.model.name, runtime, str(error)
    )


def _milliseconds(
    trial: Trial, models: Mapping[tuple[str, Precision], Model], pictures: np.ndarray
) -> dict[tuple[str, Precision], float]:
    """Median time of a picture, by runtime and precision. Rounds alternate, because other work shares the machine."""
    times: dict[tuple[str, Precision], list[float]] = {name: [] for name in models}
    for number in range(_ROUNDS):
        picture = pictures[number % len(pictures)]
        for name, model in models.items():
            began = time.perf_counter()
            trial.run(model, picture)
            times[name].append((time.perf_counter() - began) * 1e3)
    return {name: round(statistics.median(measured[1:]), 1) for name, measured in times.items()}


def _agrees(trial: Trial, candidate: Model, name: str, config: ModelConfig) -> bool:
    """Whether the answers and the most important units of a compiled runtime are those of PyTorch."""
    same, overlap = [], []
    pictures = _pictures(trial, config)
    for picture in pictures:
        one, other = (trial.run(model, picture) for model in (trial.model, candidate))
        same.append(one.answers == other.answers)
        overlap.append(len(one.units & other.units) / max(1, len(one.units)) if one.units else 1.0)
    agrees = bool(np.mean(same) >= LEAST_SAME_ANSWERS and np.mean(overlap) >= LEAST_SAME_UNITS)
    log.log(
        logging.INFO if agrees else logging.WARNING,
        "role=%s model=%s runtime=%r event=%s same_answers=%.3f same_units=%.3f pictures=%d",
        trial.role,
        trial.model.name,
        name,
        "agrees" if agrees else "disagrees",
        np.mean(same),
        np.mean(overlap),
        len(pictures),
    )
    return agrees


def _pictures(trial: Trial, config: ModelConfig) -> Pixels:
    """Calibration pictures (n, S, S, 3): from the folder, or drawn. Raises UsageError."""
    grid, where = trial.model.grid, f"{trial.role}.calibration"
    if config.calibration is None:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (_DRAWN_PICTURES, 9, 9, 3), np.uint8)
        return np.stack([make_picture(picture, grid.image_size, "squash", "bicubic") for picture in coarse])
    files = _picture_files(config.calibration, where)
    chosen = [files[i * len(files) // CALIBRATION_PICTURES] for i in range(CALIBRATION_PICTURES)]
    return np.stack([*_read_pictures(chosen, where, grid.image_size, grid.interpolation)])


def _picture_files(folder: Path, where: str) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    except OSError as error:
        raise UsageError(f"{where}: folder {str(folder)!r} cannot be read: {error.strerror}") from None
    if len(files) < CALIBRATION_PICTURES:
        raise UsageError(
            f"{where}: folder {str(folder)!r} has {len(files)} pictures; accepted: at least "
            f"{CALIBRATION_PICTURES} ({', '.join(sorted(_SUFFIXES))})"
        )
    return files


def _read_pictures(files: Sequence[Path], where: str, size: int, interpolation: str) -> Iterator[np.ndarray]:
    for path in files:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UsageError(f"{where}: picture {str(path)!r} cannot be read: {error}") from None
        yield make_picture(pixels, size, "squash", interpolation)


def _choice_key(trial: Trial, config: ModelConfig, installed: Sequence[str]) -> str:
    """A hash of all that a choice depends on: the model, the machine, the packages, the settings, the pictures."""
    folder = config.calibration
    files = [] if folder is None else _picture_files(folder, f"{trial.role}.calibration")
    pictures = [(path.name, path.stat().st_size) for path in files]
    versions = {name: version_of(COMPILERS[name]) for name in installed} | {"torch": torch.__version__}
    parts = (trial.name, trial.threads, config.precision, versions, cpu_name(), str(folder), pictures)
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
        paths = sorted(cache_folder("runtimes").glob("[!.]*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []
    return [choice for path in paths if (choice := _read(path))]


def _read(path: Path) -> RuntimeChoice | None:
    """A cached choice; None if there is none, or if it is damaged."""
    try:
        choice = RuntimeChoice(**parse_json(read_text(path)))
        if not all(isinstance(value, float) for value in choice.milliseconds.values()):
            raise TypeError("milliseconds")
        known = choice.runtime == "torch" or choice.runtime in COMPILERS
        return choice if known and choice.precision in ("fp32", "bf16") else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError):
        log.warning("event=choice_damaged path=%s action=measure_again", path)
        return None
