"""The configuration in a recording: a replay obeys only the settings that decide about its results.

A recording may come from a stranger. Its configuration must not open connections, read credentials, or write files, so
everything that is not in `_OBEYED` takes its default or the value from the command line. Files that it names lie in its
folder: a run copies the small ones there, and the user names a checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sagelink.pipeline.config.events import EventsConfig
from sagelink.pipeline.config.file import Overrides, build_config, dump_config, read_tree
from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.pipeline.config.output import DashboardConfig, HomeAssistantConfig
from sagelink.pipeline.config.schema import Config
from sagelink.pipeline.errors import UsageError
from sagelink.pipeline.files.output_files import CONFIG
from sagelink.pipeline.files.own_files import is_inside, own_file

_ALL = frozenset[str]()  # every key of a section
_MODEL = frozenset(("model", "checkpoint", "labels", "device"))
_OBEYED: Mapping[str, frozenset[str]] = {
    "models": _ALL,
    "packed": _ALL,
    "head": _ALL,
    "heads": _ALL,
    "threads": _ALL,
    "capture": frozenset(("resize", "heads")),
    "edge": _MODEL,
    "server": _MODEL,
    "gate": _ALL,
    "video": _ALL,
    "budget": frozenset(
        ("uplink", "window", "quotas", "counts", "pace")
    ),  # a ledger belongs to the machine that recorded
    "select": _ALL,
    "encode": _ALL,
    "ship": frozenset(("server", "in_flight", "deadline")),  # the address: only for the size of a message on the wire
    "fuse": _ALL,
    "events": frozenset(("rules",)),
    "frigate": frozenset(("classes",)),
}
_CAMERA = frozenset(("name", "weight", "min_share", "budget", "heads"))
_FILES = ("packed", "edge.checkpoint", "edge.labels", "server.checkpoint", "server.labels", "encode.frontier")
COPIED = {"edge.labels": "edge-labels.txt", "server.labels": "server-labels.txt", "encode.frontier": "frontier.yaml"}
_HEAD, _HEADS = "head", "heads."  # the key of the first head, and the start of the keys of the others
COPIED_HEADS = ("head.safetensors", "heads-*.safetensors")  # patterns of the names of their copies
_MAX_COPIED = 10_000_000  # bytes
_NO_SOURCE = "recording"
# Keys that all recordings of earlier versions have, and whether their value, if it is not empty, decides about results.
_REMOVED = {("video", "saving"): True, ("select", "memory"): True, ("serve", "memory"): False}


def recorded_config(folder: Path, overrides: Overrides) -> Config:
    """The configuration of a replay. Raises UsageError."""
    path, tree = _recorded_tree(folder)
    recorded = build_config(tree, where=f"{path}: ")
    obeyed = {name: _part(tree[name], keys) for name, keys in _OBEYED.items() if tree.get(name) is not None}
    if recorded.cameras:
        obeyed["cameras"] = [_part(camera, _CAMERA) | {"source": _NO_SOURCE} for camera in tree["cameras"]]
    else:
        obeyed["capture"] = obeyed.get("capture", {}) | {"source": _NO_SOURCE}
    return build_config(obeyed, {**_own_files(folder, recorded, overrides), **overrides}, where=f"{path}: ")


def _recorded_tree(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The configuration file of a recording and its sections. Raises UsageError."""
    path = own_file(folder, CONFIG, f"recording {str(folder)!r}")
    tree = read_tree(path, numbers_without_unit=True)  # recordings of version 0.2 hold quantities as numbers
    if not tree:
        raise UsageError(f"{path} is empty; accepted: the configuration that the run has written there")
    for (section, key), decides in _REMOVED.items():
        part = tree.get(section)
        if isinstance(part, dict) and part.pop(key, None) and decides:
            raise UsageError(
                f"recording {str(folder)!r} was made with {section}.{key}, which this version does not have; accepted: "
                "the version of Sagelink that recorded it"
            )
    return path, tree


def _part(section: Any, keys: frozenset[str]) -> Any:
    return {key: value for key, value in section.items() if key in keys} if keys else section


def _own_files(folder: Path, recorded: Config, overrides: Overrides) -> dict[str, str]:
    """The files that the recording names, by key. Raises UsageError for one outside the folder."""
    files: dict[str, str] = {}
    for key, name in _named_files(recorded):
        if key in overrides:
            continue
        if not is_inside(folder, name):
            raise UsageError(
                f"recording {str(folder)!r}: {key} is {name[:200]!r}, a file outside of the recording; accepted: a "
                f"file in its folder, or the file that you name: --set {key}=FILE"
            )
        files[key] = str(own_file(folder, name, f"recording {str(folder)!r}: {key}"))
    return files


def _named_files(config: Config) -> Iterator[tuple[str, str]]:
    for key in _FILES:
        path: Path | None = functools.reduce(getattr, key.split("."), config)  # type: ignore[assignment]
        if path is not None:
            yield key, str(path)
    if config.head is not None:
        yield _HEAD, str(config.head)
    for name, path in config.heads.items():
        yield f"{_HEADS}{name}", str(path)


def _copied_name(key: str) -> str | None:
    """Name of the copy of a file in the recording; None for a file that is not copied."""
    if key == _HEAD or key.startswith(_HEADS):
        return f"{key.replace('.', '-')}.safetensors"
    return COPIED.get(key)


def changes_results(folder: Path, changes: Overrides) -> bool:
    """Whether `changes` differ from the recorded settings. Naming a recorded file again, because it is outside of the
    recording, changes nothing. Raises UsageError."""
    if not all(key in _FILES or key == _HEAD or key.startswith(_HEADS) for key in changes):
        return bool(changes)
    _, tree = _recorded_tree(folder)
    recorded = dict(_named_files(build_config(tree)))
    return any(recorded.get(key) != str(value) for key, value in changes.items())


def to_record(config: Config) -> tuple[str, dict[str, bytes]]:
    """The text of the configuration for a recording, and the small files that it names, by their names there.

    The dashboard, Home Assistant, the receivers of events, and Frigate (but for the classes of its labels) are left
    out. Raises OSError for a file that cannot be read.
    """
    changes: dict[str, Any] = {
        "dashboard": DashboardConfig(),
        "home_assistant": HomeAssistantConfig(),
        "frigate": FrigateConfig(classes=config.frigate.classes),
        "events": EventsConfig(rules=config.events.rules),
    }
    files: dict[str, bytes] = {}
    for key, name in _named_files(config):
        copy = _copied_name(key)
        if copy is None:
            continue
        with Path(name).open("rb") as file:
            files[copy] = file.read(_MAX_COPIED)
        section, _, field = key.partition(".")
        if key == _HEAD:
            changes[key] = Path(copy)
        elif key.startswith(_HEADS):
            changes[section] = changes.get(section, {}) | {field: Path(copy)}
        else:
            changes[section] = changes.get(section, getattr(config, section)).model_copy(update={field: Path(copy)})
    return dump_config(config.model_copy(update=changes)), files
