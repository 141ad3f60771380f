"""The commands `config show` and `config check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sagelink.app.options import SetOption, load_settings
from sagelink.pipeline.text import safe_text

config_app = typer.Typer(help="Show or check a configuration.", no_args_is_help=True)


@config_app.command("show")
def config_show(
    config: Annotated[Optional[Path], typer.Argument(metavar="FILE", help="YAML file (default: none).")] = None,
    assignments: SetOption = None,
) -> None:
    """Print the whole configuration: defaults, file, overrides."""
    from sagelink.pipeline.config.file import dump_config

    typer.echo(dump_config(load_settings(config, {}, assignments)), nl=False)


@config_app.command("check")
def config_check(config: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file.")]) -> None:
    """Check a configuration file, and print its errors."""
    from sagelink.app.edge.checks import check_names
    from sagelink.pipeline.config.file import load_config

    check_names(load_config(config))
    typer.echo(safe_text(f"{config}: valid"))
