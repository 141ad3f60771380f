"""docs/configuration.md is what the models say."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.config.reference import reference
from sagelink.pipeline.config.schema import Config

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run `python -m sagelink.pipeline.config.reference > docs/configuration.md`"
    )


def test_every_key_has_a_row_that_says_what_it_means() -> None:
    rows = [line.strip("| ").split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    meanings = {row[0].strip("`"): row[-1] for row in rows if len(row) == 4}
    sections = [type(field.default) for field in Config.model_fields.values() if isinstance(field.default, BaseModel)]
    keys = {key for section in sections for key in section.model_fields} | {"models", "threads"}
    keys |= CameraConfig.model_fields.keys()
    assert meanings.keys() >= keys
    assert "None" not in meanings.values()
