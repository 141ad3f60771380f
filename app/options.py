"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# Options that name models, by the configuration's key.
MODEL_OPTIONS = {
    "models": "models",
    "edge_model": "edge.model",
    "edge_checkpoint": "edge.checkpoint",
    "server_model": "server.model",
    "server_checkpoint": "server.checkpoint",
}

ConfigFile = Annotated[Optional[Path], typer.Option("--config", "-c", help="YAML file; options override it.")]
Assignments = Annotated[
    Optional[list[str]], typer.Option("--set", help="Any key of the configuration: stage.key=value.")
]
Pair = Annotated[Optional[str], typer.Option("--models", help="Pair of models: deit or demo.")]
EdgeModel = Annotated[Optional[str], typer.Option(help="timm VisionTransformer that scores.")]
EdgeCheckpoint = Annotated[Optional[str], typer.Option(help="Its weights, a safetensors file.")]
ServerModel = Annotated[Optional[str], typer.Option(help="timm VisionTransformer that classifies.")]
ServerCheckpoint = Annotated[Optional[str], typer.Option(help="Its weights, a safetensors file.")]
