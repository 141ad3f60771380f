"""`sagelink models`: prints the models that are bundled, cached, or available by name."""

from __future__ import annotations

from rich.table import Table

from sagelink.monitor.terminal import SafeConsole


def print_models() -> None:
    """Prints the bundled pair, the default pair, every cached timm model, and the number of further timm models."""
    import timm

    from sagelink.models.loading import DEMO_DIR, DEMO_MODELS, cached_file
    from sagelink.pipeline.config import MODEL_PAIRS

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
