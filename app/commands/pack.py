"""The command `pack`: writes the folder of a camera box, which runs without PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagelink.app.options import ModelOptions, with_model_options
from sagelink.pipeline.errors import UsageError

if TYPE_CHECKING:
    from sagelink.models.heads.head import Head
    from sagelink.models.pair import Pair
    from sagelink.pipeline.config.schema import Config

_CONFIG, _FRONTIER = "edge.yaml", "frontier.yaml"
_HEAD, _HEADS, _LABELS = "head", "heads.", "frigate.heads."  # keys of the configuration
_IN_THE_PACK = {"checkpoint", "labels", "calibration", "device", "runtime", "precision"}  # keys of both models
_FIRST_LINES = """\
# Written by `sagelink pack`. A path that begins with ./ is relative to this file.
"""


@with_model_options
def pack(
    options: ModelOptions,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write: a new or empty one.")] = Path("box"),
    server: Annotated[
        Optional[str],
        typer.Option(metavar="URL", help="Address of the `sagelink serve` that the box sends to; may be set later."),
    ] = None,
    any_head: Annotated[
        bool,
        typer.Option("--any-head", help="Also take heads that read other features than those given: a larger file."),
    ] = False,
) -> None:
    """Pack models for a camera box without PyTorch.

    The folder holds the edge model for ONNX Runtime or OpenVINO, an outline of the server model, its frontier, the
    heads, and the configuration: docs/edge-box.md."""
    config = options.load({"ship.server": server})
    if config.packed is not None:
        raise UsageError(
            f"packed {str(config.packed)!r}: these models are packed already; accepted: the models themselves"
        )
    _check_folder(out)
    from sagelink.models.heads.readout import linear_reads
    from sagelink.models.packed.file import PACK
    from sagelink.models.packed.packing import ALL_READS, packed_models
    from sagelink.models.pair import Pair
    from sagelink.monitor.terminal.terminal import SafeConsole
    from sagelink.stages.frontier import find_frontier

    console = SafeConsole()
    heads = _heads(config)
    pair = Pair.load_outline(config.model_copy(update={"head": None, "heads": {}}))
    for key, head in heads.items():
        _check_head(pair, key, head)
    own = linear_reads(pair.edge.vit)
    first = [head.edge.card.reads for key, head in heads.items() if not key.startswith(_HEADS)]
    reads = {*first, *([own] if own and _HEAD not in heads else [])}
    models = packed_models(
        pair.edge,
        pair.server,
        config.select.importance,
        ALL_READS if any_head else reads,
        lambda each: console.print(f"exporting the edge pass for classifiers that read: {each}"),
    )
    frontier = find_frontier(config.server_model, config.encode.frontier, config.server.checkpoint).read_bytes()
    files = {PACK: models, _FRONTIER: frontier, **{_file_of(key): head.file_content() for key, head in heads.items()}}
    files[_CONFIG] = (_FIRST_LINES + _settings(config, {"packed": PACK, "encode.frontier": _FRONTIER}, heads)).encode()
    _write(out, files)
    size = sum(map(len, files.values()))
    console.print(f"written to {out}: {', '.join(files)}; {size / 1e6:.1f} MB", soft_wrap=True, highlight=False)
    console.print(f"on the box: sagelink run --config {out / _CONFIG}", soft_wrap=True, highlight=False)


def _check_folder(out: Path) -> None:
    """Raises UsageError unless the folder is new or empty, and can be written: nothing of the user's is ever replaced,
    and an export is not made in vain."""
    from sagelink.pipeline.files.output_files import check_writable

    check_writable(out.parent)
    try:
        if out.is_dir() and not any(out.iterdir()):
            return
    except OSError as error:
        raise UsageError(f"--out {str(out)!r}: {error.strerror}") from None
    if out.exists():
        kind = "is not empty" if out.is_dir() else "is not a folder"
        raise UsageError(f"--out {str(out)!r} {kind}; accepted: a new or empty folder")


def _heads(config: Config) -> dict[str, Head]:
    """The heads that the configuration names, by its key. Raises UsageError."""
    from sagelink.models.heads.head import read_head

    paths = {} if config.head is None else {_HEAD: config.head}
    paths |= {f"{_HEADS}{name}": path for name, path in config.heads.items()}
    paths |= {f"{_LABELS}{label}": path for label, path in config.frigate.heads.items()}
    return {key: read_head(path) for key, path in paths.items()}


def _check_head(pair: Pair, key: str, head: Head) -> None:
    try:
        pair.check_head(head)
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from None


def _file_of(key: str) -> str:
    """The name in the folder of the head that has this key of the configuration."""
    return f"{key.replace('.', '-').replace('/', '-')}.safetensors"


def _settings(config: Config, files: Mapping[str, str], heads: Iterable[str]) -> str:
    """The configuration of the box as YAML: what the user gave, with the files of the folder."""
    import yaml

    from sagelink.pipeline.config.file import given_settings, place

    settings = given_settings(config)
    for role, name in (("edge", config.edge_model), ("server", config.server_model)):
        kept = {key: value for key, value in settings.get(role, {}).items() if key not in _IN_THE_PACK}
        settings[role] = kept | {"model": name}
    settings.pop("models", None)
    for key, name in {**files, **{key: _file_of(key) for key in heads}}.items():
        place(settings, key, f"./{name}")
    return yaml.safe_dump(settings, sort_keys=False)


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """Writes the folder at once or not at all. Raises SagelinkError."""
    from sagelink.pipeline.files.output_files import cannot_write

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=".sagelink-", ignore_cleanup_errors=True) as folder:
            whole = Path(folder) / out.name
            whole.mkdir()
            for name, content in files.items():
                (whole / name).write_bytes(content)
            whole.rename(out)
    except OSError as error:
        raise cannot_write(out, error) from None
