"""`sagelink budget`: shows what a ledger has counted, and resets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sagelink.pipeline.text import safe_text

budget_app = typer.Typer(help="Show or reset a ledger: what was spent of each quota.", no_args_is_help=True)

LedgerArgument = Annotated[Path, typer.Argument(metavar="LEDGER", help="File of budget.ledger.")]


@budget_app.command("show")
def show(
    ledger: LedgerArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show limits, used bits, forecasts, and the use by camera and by kind."""
    from sagelink.pipeline.ledger.report import read_ledger

    report = read_ledger(ledger)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    from sagelink.monitor.terminal.terminal import SafeConsole

    console = SafeConsole()
    console.print(_limits(report["limits"]))
    since = f" since {report['since']}" if report["since"] else ""
    for title, key in (("camera", "by_camera"), ("kind", "by_kind")):
        console.print(f"by {title}{since}", style="italic")
        console.print(_sums(report[key]))


@budget_app.command("reset")
def reset(
    ledger: LedgerArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Set all counts of quotas to zero; a copy of the ledger stays beside it."""
    from sagelink.pipeline.ledger.report import read_ledger, reset_ledger

    read_ledger(ledger)  # a wrong file is refused before the question
    if not yes:
        typer.confirm(f"Forget what {ledger} has counted? The quotas of this period begin anew", abort=True)
    copy = reset_ledger(ledger)
    typer.echo(safe_text(f"{ledger}: reset; the counts before are in {copy}"))


def _limits(limits: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    from sagelink.pipeline.quantities import format_bytes

    table = Table(box=None, pad_edge=False)
    for heading in ("limit", "camera", "used", "of", "", "period", "forecast", "price"):
        table.add_column(heading, no_wrap=heading != "period")
    for limit in limits:
        period = f"{limit['period_start'][:10]} to {limit['period_end'][:10]}" if limit["period_start"] else ""
        table.add_row(
            limit["name"],
            limit["camera"] or "all",
            format_bytes(limit["used_bits"] / 8),
            format_bytes(limit["limit_bits"] / 8),
            f"{limit['used_bits'] / max(1, limit['limit_bits']):.0%}",
            period or f"{limit['window_s']:g} s",
            "" if limit["forecast_bits"] is None else format_bytes(limit["forecast_bits"] / 8),
            "" if limit["price"] is None else f"{limit['price']:g}/MB",
        )
    return table


def _sums(sums: dict[str, int]) -> Any:
    from rich.table import Table

    from sagelink.pipeline.quantities import format_bytes

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, bits in sums.items():
        table.add_row(name or "no camera", format_bytes(bits / 8))
    return table
