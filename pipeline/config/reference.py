"""Generates docs/configuration.md from the configuration schema.

Usage: `python -m sagelink.pipeline.config.reference > docs/configuration.md`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable

from pydantic import BaseModel

from sagelink.pipeline.accepted import accepted
from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.config.events import EventRule, WebhookConfig
from sagelink.pipeline.config.models import MODEL_PAIRS
from sagelink.pipeline.config.schema import Config

_INTRO = """# Configuration

Generated from `pipeline/config` by `python -m sagelink.pipeline.config.reference > docs/configuration.md`. Do not edit.

`sagelink run --config FILE` reads a YAML file with these keys. Command-line options override the file;
`--set section.key=value` overrides both. Every key is optional; unknown keys are errors. Relative paths are relative to
the working directory; in the file, a path that begins with `./` is relative to the file.

| kind | examples |
|---|---|
| rate | `64kbit/s`, `64kbps`, `8kB/s`; prefixes `k`, `M`, `G` of 1000 |
| size | `2kB`, `1.5MB`, `64KiB` |
| duration | `500us`, `500ms`, `1s`, `2min`, `1h`, `1d` |

A rate, size or duration needs its unit: `64` is refused, because it could mean `64bit/s` or `64kbit/s`.
"""


def reference() -> str:
    """The page as Markdown: a table of the top-level keys, then one table per section."""
    sections = {name: f.default for name, f in Config.model_fields.items() if isinstance(f.default, BaseModel)}
    top = [name for name in Config.model_fields if name not in {*sections, "cameras"}]
    parts = [f"{_INTRO}\n## Top level\n\n{_table(Config, top)}"]
    for name, section in sections.items():
        parts += [
            f"\n## `{name}`\n",
            f"{inspect.getdoc(type(section))}\n",
            _table(type(section), type(section).model_fields),
        ]
        if name == "capture":
            own = ("name", "source", "weight", "min_share", "budget")
            parts += ["\n## `cameras`\n", f"A list. {inspect.getdoc(CameraConfig)}\n", _table(CameraConfig, own)]
        if name == "events":
            rule = _table(EventRule, EventRule.model_fields)
            parts += ["\n### `events.rules`\n", f"A list. {inspect.getdoc(EventRule)}\n", rule]
            webhook = _table(WebhookConfig, WebhookConfig.model_fields)
            parts += ["\n### `events.webhook`\n", f"{inspect.getdoc(WebhookConfig)}\n", webhook]
    parts += ["\n## Pairs of models\n\n| `models` | edge | server |\n|---|---|---|"]
    for name, pair in MODEL_PAIRS.items():
        parts.append(f"| `{name}` | `{pair.edge}` | `{pair.server}` |")
    return "\n".join([*parts, ""])


def _table(section: type[BaseModel], keys: Iterable[str]) -> str:
    rows = ["| key | accepted | default | meaning |\n|---|---|---|---|"]
    for key in keys:
        field = section.model_fields[key]
        default = "half of the CPU cores" if key == "threads" else _default(section, key)
        rows.append(f"| `{key}` | {accepted(field)} | {default} | {field.description} |")
    return "\n".join(rows)


def _default(section: type[BaseModel], key: str) -> str:
    """The default value as a user would write it."""
    field = section.model_fields[key]
    if field.is_required():
        return "required"
    value = section.model_construct().model_dump(mode="json", include={key})[key]
    match value:
        case None | [] | ():
            return "none"
        case "":
            return "empty"
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:g}`"
        case {"url": _}:
            return "the defaults below"
        case [{"name": name}]:
            return f"one rule, `{name}`, with the defaults below"
    return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
