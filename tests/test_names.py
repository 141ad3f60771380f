"""Names: one class name stands for one class, and code, documents and examples import Sagelink by its full name."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from tests.test_imports import LAYERS, MODULES, ROOT

FOLDERS = "|".join(layer for layer in LAYERS if layer != "bench")
OLD_IMPORT = re.compile(
    rf"^\s*(?:>>> )?from (?:{FOLDERS})(?:\.[\w.]+)? import |^\s*(?:>>> )?import (?:{FOLDERS})(?:\.[\w.]+)?(?:,|\s|$)"
    rf"|python[\d.]* -m (?:{FOLDERS})\b|\"-m\", \"(?:{FOLDERS})\b|(?<![\w./-])(?:{FOLDERS})\.\w+:(?:main|app)\b"
)
TEXTS = {".py", ".md", ".yaml", ".yml", ".toml", ".service", ".sh", ".conf", ".html", ""}
PLACES = (
    "*",
    "docs/**/*",
    "configs/**/*",
    "deploy/**/*",
    "tests/**/*",
    ".ci/*",
    *(f"{layer}/**/*" for layer in LAYERS),
)


def classes(source: str) -> list[str]:
    """Names of the classes at the top level of a module."""
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]


def old_imports(text: str) -> list[int]:
    """Numbers of the lines that import or run a module by its name without `sagelink`."""
    return [number for number, line in enumerate(text.splitlines(), 1) if OLD_IMPORT.search(line)]


def texts() -> dict[Path, str]:
    paths = {path for place in PLACES for path in ROOT.glob(place) if path.is_file() and path.suffix in TEXTS}
    found = {}
    for path in sorted(paths - {Path(__file__)}):
        try:
            found[path] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def test_no_two_classes_have_one_name():
    places = defaultdict(list)
    for module, path in MODULES.items():
        for name in classes(path.read_text(encoding="utf-8")):
            places[name].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_old_imports_are_found():
    lines = [
        "from pipeline.graph import Graph",
        "    import models",
        "import stages.fuse, os",
        "python -m pipeline.cli run",
        '[sys.executable, "-m", "lab.train_demo"]',
        'sagelink = "app.cli:main"',
    ]
    assert old_imports("\n".join(lines)) == [1, 2, 3, 4, 5, 6]
    fine = ["from sagelink.pipeline.graph import Graph", "from sagelink import models", "import sagelink.models"]
    fine += ["python -m sagelink run", "python -m bench.edge", "from models that were trained", "import appdirs"]
    fine += ['sagelink = "sagelink.app.cli:main"']
    assert old_imports("\n".join(fine)) == []


def test_everything_imports_sagelink_by_its_full_name():
    found = texts()
    assert {ROOT / "README.md", ROOT / "deploy/Dockerfile", ROOT / "bench/edge.py"} <= set(found)
    lines = {str(path.relative_to(ROOT)): old_imports(text) for path, text in found.items()}
    assert {path: numbers for path, numbers in lines.items() if numbers} == {}
