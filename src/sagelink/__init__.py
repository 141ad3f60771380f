"""Sagelink sends the part of a camera frame that a remote model needs, and never more bits than the uplink may carry.

This package exports the names that user programs need most. Each name imports its module at its first use, so
`import sagelink` is fast. Import everything else from its module, such as `sagelink.stages.selectors`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagelink.app.edge.run import prepare
    from sagelink.pipeline.budget.uplink_budget import UplinkBudget
    from sagelink.pipeline.config.file import load_config
    from sagelink.pipeline.graph import Graph
    from sagelink.stages.confidence_gate import register_policy
    from sagelink.stages.selectors import register_selector
    from sagelink.transport.codecs import register_codec

    __version__: str

__all__ = [
    "Graph",
    "UplinkBudget",
    "__version__",
    "load_config",
    "prepare",
    "register_codec",
    "register_policy",
    "register_selector",
]

_MODULES = {
    "Graph": "pipeline.graph",
    "UplinkBudget": "pipeline.budget.uplink_budget",
    "load_config": "pipeline.config.file",
    "prepare": "app.edge.run",
    "register_codec": "transport.codecs",
    "register_policy": "stages.confidence_gate",
    "register_selector": "stages.selectors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sagelink")
    if name in _MODULES:
        return getattr(importlib.import_module(f"sagelink.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'sagelink' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
