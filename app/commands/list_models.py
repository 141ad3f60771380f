"""`sagelink models`: prints the models that are bundled, cached, or available by name, and heads in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from sagelink.models.heads.head import Head, read_head
from sagelink.monitor.terminal.terminal import SafeConsole
from sagelink.pipeline.errors import UsageError

_MAX_HEADS = 1000  # of one folder


def print_heads(paths: Sequence[Path]) -> None:
    """Prints the heads in files and folders: classes, models, and what was measured when they were taught.

    Raises UsageError for a file that is no head, and for a folder without heads.
    """
    console = SafeConsole()
    for path in _head_files(paths):
        head = read_head(path)
        console.print(f"{path}: head {head.taught.head_id.hex()}", highlight=False, soft_wrap=True)
        for key, value in _description(head):
            console.print(f"  {key}: {value}", highlight=False, soft_wrap=True, markup=False)


def _head_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(path.glob("*.head"))[:_MAX_HEADS]
        if not found:
            raise UsageError(f"folder {str(path)!r} holds no *.head file; accepted: head files, folders of them")
        yield from found


def _description(head: Head) -> Iterator[tuple[str, object]]:
    card = head.card
    names = card.classes
    kind = "" if card.combinations is None else "; a picture may show several"
    yield "classes", f"{len(names)}: {', '.join(names[:30])}{', ...' if len(names) > 30 else ''}{kind}"
    yield "edge model", f"{card.edge.model} (backbone {card.edge.backbone})"
    yield "server model", f"{card.server.model} (backbone {card.server.backbone})"
    yield "unknown pictures", "recognised" if head.unknown is not None else "not recognised"
    for key, value in card.card.items():
        text = ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else str(value)
        if value not in ([], {}):
            yield key.replace("_", " "), text if len(text) <= 200 else f"{text[:200]} ..."


def print_models() -> None:
    """Prints the bundled pair, the default pair, every cached timm model, and the number of further timm models."""
    import timm

    from sagelink.models.loading import DEMO_DIR, DEMO_MODELS, cached_file
    from sagelink.pipeline.config.models import MODEL_PAIRS

    table = Table(title="models", title_justify="left", box=None, pad_edge=False)
    for heading in ("name", "state", "use"):
        table.add_column(heading, overflow="fold")
    for name, role in DEMO_MODELS.items():
        bundled = (DEMO_DIR / f"{role}.safetensors").is_file()
        table.add_row(name, "bundled" if bundled else "missing", f"{role} of --models demo")
    defaults = {MODEL_PAIRS["deit"].edge: "edge", MODEL_PAIRS["deit"].server: "server"}
    known = timm.list_pretrained("*vit*") + timm.list_pretrained("deit*")
    for name in sorted({*known, *defaults}):
        cached = cached_file(name) is not None
        if cached or name in defaults:
            use = f"{defaults[name]} of --models deit" if name in defaults else "--edge-model, --server-model"
            table.add_row(name, "cached" if cached else "downloaded at first use", use)
    console = SafeConsole()
    console.print(table)
    console.print(
        f"\n{len(known)} more timm names can be tried: VisionTransformer models; on the edge with a class token.\n"
        "Without Internet access: --edge-checkpoint and --server-checkpoint take safetensors files.",
        highlight=False,
    )
