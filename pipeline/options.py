"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

ConfigFile = Annotated[Optional[Path], typer.Option("--config", "-c", help="YAML file; options override it.")]
Assignments = Annotated[
    Optional[list[str]], typer.Option("--set", help="Any key of the configuration: stage.key=value.")
]
Pair = Annotated[Optional[str], typer.Option("--models", help="Pair of models: deit or demo.")]
EdgeModel = Annotated[Optional[str], typer.Option(help="timm VisionTransformer that scores.")]
EdgeCheckpoint = Annotated[Optional[str], typer.Option(help="Its weights, a safetensors file.")]
ServerModel = Annotated[Optional[str], typer.Option(help="timm VisionTransformer that classifies.")]
ServerCheckpoint = Annotated[Optional[str], typer.Option(help="Its weights, a safetensors file.")]
