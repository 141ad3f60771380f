"""Who may import whom (the table in the design), and what must stay unloaded until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("lab", "models", "monitor", "pipeline", "server", "stages", "transport")
HEAVY = {"cv2", "torch", "aiortc", "aiomqtt"}
CONCRETE_TRANSPORTS = {
    f"transport.{path.stem}"
    for path in (ROOT / "transport").iterdir()
    if path.stem not in {"__init__", "__pycache__", "codecs", "embedding", "link", "remembered", "unit_set", "wire"}
}

# Folder: what its modules import nowhere, and what they do not import when they are loaded.
NOWHERE = {
    "pipeline": set(),
    "stages": {"server", "sagelink.app.cli", "sagelink.app.run", "sagelink.app.edge_graph", *CONCRETE_TRANSPORTS},
    "transport": {"stages", "server", "sagelink.app.cli"},
    "server": {"sagelink.stages.capture", "sagelink.stages.sources", "sagelink.app.cli"},
    "monitor": {
        "server",
        "sagelink.stages.capture",
        "sagelink.stages.sources",
        "sagelink.app.cli",
        "sagelink.transport.in_process",
    },
    "lab": {"monitor", "sagelink.app.cli", *CONCRETE_TRANSPORTS},
    "models": {"transport", "server", "sagelink.app.cli"},
}
NOT_WHEN_LOADED = {"pipeline": HEAVY | {"stages", "transport", "server", "models", "monitor"}}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(tree: ast.Module, package: str, loading: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of whatever is imported; `loading`: only what runs when the module is loaded."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        if loading and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if loading and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))


def trespasses(folder: str, forbidden: set[str], loading: bool) -> list[str]:
    found = []
    for path in modules(folder):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        for line, name in imports(ast.parse(path.read_text(encoding="utf-8")), package, loading):
            if any(name == other or name.startswith(f"{other}.") for other in forbidden):
                found.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    return found


def test_the_finder_finds():
    source = (
        "import a.b\nfrom c import d\nfrom . import e\nif TYPE_CHECKING:\n    import f\ndef g():\n    from h import i\n"
    )
    tree = ast.parse(source)
    assert {name for _, name in imports(tree, "p.q", loading=False)} == {
        *("a.b", "c", "c.d", "p.q", "p.q.e", "f", "h", "h.i")
    }
    assert {name for _, name in imports(tree, "p.q", loading=True)} == {"a.b", "c", "c.d", "p.q", "p.q.e"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_folder_does_not_import(folder):
    assert modules(folder)
    assert trespasses(folder, NOWHERE[folder], loading=False) == []


@pytest.mark.parametrize("folder", NOT_WHEN_LOADED)
def test_what_a_folder_does_not_import_when_it_is_loaded(folder):
    assert trespasses(folder, NOT_WHEN_LOADED[folder], loading=True) == []


def test_concrete_transports_are_known():
    assert "sagelink.transport.in_process" in CONCRETE_TRANSPORTS


def loaded_by(*arguments: str) -> set[str]:
    """Top-level names of all modules that a fresh interpreter loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


def test_loading_the_whole_pipeline_loads_nothing_heavy():
    names = [f"pipeline.{path.stem}" for path in modules("pipeline") if path.stem != "__init__"]
    loaded = loaded_by("-c", "import " + ", ".join(names))
    assert "pydantic" in loaded
    assert loaded & HEAVY == set()


def test_help_loads_next_to_nothing():
    loaded = loaded_by("-m", "sagelink.app.cli", "--help")
    assert "typer" in loaded
    assert loaded & (HEAVY | {"numpy", "PIL", "av", "timm", "pydantic", "yaml"}) == set()
