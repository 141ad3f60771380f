"""Checks the names in the section `frigate`: cameras, labels and zones against those of Frigate, since a misspelt one
matches no event, and classes against those of the heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from sagelink.pipeline.config.frigate import FrigateConfig
from sagelink.pipeline.errors import UsageError, suggest

_SHOWN = 10  # names in a message


class _Objects(BaseModel):
    track: list[str] = []


class _Camera(BaseModel):
    zones: dict[str, object] = {}
    objects: _Objects = _Objects()


class _Model(BaseModel):
    attributes_map: dict[str, list[str]] = {}


class _FrigateConfiguration(BaseModel):
    """The part of `/api/config` that is used."""

    cameras: dict[str, _Camera]
    model: _Model = _Model()


@dataclass(frozen=True, slots=True)
class KnownNames:
    """The names that Frigate has."""

    cameras: tuple[str, ...]
    zones: tuple[str, ...]
    labels: tuple[str, ...]


def known_names(content: object) -> KnownNames | None:
    """From the JSON of `/api/config`; None if it is something else."""
    try:
        found = _FrigateConfiguration.model_validate(content)
    except ValidationError:
        return None
    zones = {zone for camera in found.cameras.values() for zone in camera.zones}
    labels = {label for camera in found.cameras.values() for label in camera.objects.track}
    labels |= {attribute for attributes in found.model.attributes_map.values() for attribute in attributes}
    return KnownNames(tuple(found.cameras), tuple(sorted(zones)), tuple(sorted(labels)))


def unknown_names(config: FrigateConfig, known: KnownNames) -> Iterator[str]:
    """One text for each name that Frigate does not have, with key and suggestion. The default of `private` may name
    labels that a Frigate does not track."""
    private = set(config.private) - set(FrigateConfig().private)
    named: tuple[tuple[str, Iterable[str], tuple[str, ...]], ...] = (
        ("cameras", config.cameras, known.cameras),
        ("zones", config.zones, known.zones),
        ("labels", config.labels, known.labels),
        ("private", sorted(private), known.labels),
        ("heads", config.heads, known.labels),
        ("classes", config.classes, known.labels),
    )
    for key, names, accepted in named:
        for name in names:
            if accepted and name not in accepted:
                shown = ", ".join(accepted[:_SHOWN]) + (" ..." if len(accepted) > _SHOWN else "")
                yield f"key=frigate.{key} name={name!r}{suggest(name, accepted)}; Frigate has: {shown}"


def check_classes(config: FrigateConfig, classes_of: Callable[[str], Sequence[str]]) -> None:
    """`classes_of`: names of the classes that the events of a label may get. Raises UsageError for another one in
    `frigate.classes`."""
    for label, names in config.classes.items():
        known = classes_of(label)
        for name in names:
            if name not in known:
                raise UsageError(
                    f"frigate.classes: {label}: {name!r} is no class of its head or of the models"
                    f"{suggest(name, known)}; accepted: {', '.join(known[:8])}{' ...' if len(known) > 8 else ''}"
                )
