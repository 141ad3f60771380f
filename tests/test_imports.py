"""The layers: a module imports only from its own layer or a lower layer, and there are no circular imports.

`LAYERS` is the ranked list; docs/architecture.md shows the same list. Imports inside functions and
under `TYPE_CHECKING` count too, because they are dependencies as well.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = ("pipeline", "net", "models", "transport", "stages", "monitor", "server", "lab", "app", "bench")
HEAVY = {"cv2", "torch", "timm", "aiortc", "aiomqtt"}


def module_name(path: Path) -> str:
    """`sagelink.stages.fuse` for stages/fuse.py; benchmarks are not part of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return name if parts[0] == "bench" else f"sagelink.{name}"


PACKAGES = {module_name(path) for layer in LAYERS for path in (ROOT / layer).rglob("__init__.py")}
MODULES = {module_name(path): path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))}


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line number and dotted name of each import in a module, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def known_module(name: str) -> str | None:
    """Our module that a dotted name names, or that contains it; None for other packages."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


@functools.cache
def graph() -> dict[str, dict[str, int]]:
    """For each of our modules: our modules that it imports, with the line number."""
    found: dict[str, dict[str, int]] = {}
    for name, path in MODULES.items():
        lines = found[name] = {}
        for line, target in imported(path.read_text(encoding="utf-8")):
            module = known_module(target)
            if module is not None and module != name:
                lines.setdefault(module, line)
    return found


def layer_of(module: str) -> int:
    return LAYERS.index(module.removeprefix("sagelink.").partition(".")[0])


def upward(edges: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"{module}:{line} imports {target}"
        for module, targets in edges.items()
        for target, line in targets.items()
        if layer_of(target) > layer_of(module)
    ]


def circles(edges: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    """Circular imports: each is the list of modules on the circle."""
    state: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        state[module] = 1
        path.append(module)
        for target in edges.get(module, {}):
            if target not in state:
                visit(target)
            elif state[target] == 1:
                found.append([*path[path.index(target) :], target])
        path.pop()
        state[module] = 2

    for module in edges:
        if module not in state:
            visit(module)
    return found


def test_the_checks_find_violations():
    assert [*imported("import a.b\nfrom c import d\ndef g():\n    from h import i\n")] == [
        (1, "a.b"),
        (2, "c.d"),
        (4, "h.i"),
    ]
    edges = {"sagelink.pipeline.x": {"sagelink.stages.y": 3}, "sagelink.stages.y": {"sagelink.pipeline.x": 4}}
    assert upward(edges) == ["sagelink.pipeline.x:3 imports sagelink.stages.y"]
    assert circles(edges) == [["sagelink.pipeline.x", "sagelink.stages.y", "sagelink.pipeline.x"]]
    assert known_module("sagelink.stages.fuse.Fuse") == "sagelink.stages.fuse"
    assert known_module("numpy.typing") is None


def test_every_module_imports_from_its_own_layer_or_a_lower_one():
    assert upward(graph()) == []


def test_no_module_imports_itself_through_others():
    # A package's __init__ is for its users; the package's own modules import each other by their full names.
    assert circles(graph()) == []


def folder(module: str) -> str:
    return module if module in PACKAGES else module.rpartition(".")[0]


def test_no_folder_inside_a_layer_imports_itself_through_others():
    # A folder and the one that holds it may import each other: the outer one opens what the inner one holds.
    edges: dict[str, dict[str, int]] = {}
    for module, targets in graph().items():
        found = edges.setdefault(folder(module), {})
        for target, line in targets.items():
            if target.count(".") > 2 and not (module + ".").startswith(folder(target) + "."):
                found.setdefault(folder(target), line)
    inner = {name: targets for name, targets in edges.items() if name.count(".") > 1}
    assert "sagelink.pipeline.ledger" in inner
    assert circles(inner) == []


def test_the_documents_show_the_same_layers():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert " < ".join(f"`{layer}`" for layer in LAYERS) in text
    rows = [match[1] for match in re.finditer(r"^\| `(\w+)/` \|", text, re.MULTILINE) if match[1] in LAYERS]
    assert rows == [*LAYERS]


def loaded_by(*arguments: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


def test_the_core_loads_nothing_heavy():
    names = [name for name in MODULES if name.startswith("sagelink.pipeline.")]
    loaded = loaded_by("-c", "import " + ", ".join(names))
    assert "pydantic" in loaded
    assert loaded & (HEAVY | {"starlette", "uvicorn"}) == set()


def test_a_console_loads_no_model():
    loaded = loaded_by("-c", "import sagelink.app.server.console")
    assert "starlette" in loaded
    assert loaded & {"torch", "timm", "cv2", "av", "aiortc"} == set()


def test_importing_the_package_loads_no_dependency():
    loaded = loaded_by("-c", "import sagelink")
    assert "sagelink" in loaded
    assert loaded & (HEAVY | {"pydantic", "numpy", "yaml"}) == set()


def test_help_loads_no_heavy_dependency():
    loaded = loaded_by("-m", "sagelink", "--help")
    assert "typer" in loaded
    assert loaded & (HEAVY | {"numpy", "PIL", "av", "pydantic", "yaml"}) == set()
