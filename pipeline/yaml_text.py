"""Reads YAML that a person wrote. Numbers and dates stay text, as written.

The configuration schema knows which keys are numbers. So `uplink: 64` is known to lack a unit, `source: 0` is webcam 0,
and the user name `007` keeps its zeros.
"""

from __future__ import annotations

from typing import ClassVar

import yaml

_TYPES_LEFT_TO_THE_SCHEMA = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp")}


class TextLoader(yaml.SafeLoader):
    """A loader for `yaml.load`, as safe as SafeLoader."""

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]  # the stubs declare it of instances
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TYPES_LEFT_TO_THE_SCHEMA]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
