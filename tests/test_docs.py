"""The documentation names what exists: links, anchors, modules, source files and Python examples."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md")] + sorted(ROOT.glob("docs/*.md"))
LAYERS = "pipeline|net|models|transport|stages|monitor|server|lab|app|bench|tests|deploy|configs"


def prose(page: Path) -> str:
    """A page without its fenced code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_source_files_and_python_names_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(rf"`((?:{LAYERS})/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(sagelink(?:\.\w+)+)`", text):
        assert pkgutil.resolve_name(name), name
    for module in re.findall(r"python -m ((?:sagelink|bench)[\w.]*)", text):
        assert (ROOT / (module.removeprefix("sagelink.").replace(".", "/") + ".py")).exists(), module


def test_the_index_lists_every_page():
    listed = re.findall(r"^\| \[(\S+\.md)\]", (ROOT / "docs" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {*listed} == {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"} | {"../CONTRIBUTING.md"}


@pytest.mark.parametrize("page", ["docs/budget.md", "docs/wire.md", "CONTRIBUTING.md"])
def test_the_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(example, page, "exec"), {"__name__": "example"})  # noqa: S102  # our own page


def test_every_command_of_the_pages_exists():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = {*re.findall(r"(?:`|^ *)sagelink ([a-z][a-z-]*)\b", text, re.MULTILINE)}
    done = subprocess.run([sys.executable, "-m", "sagelink", "--help"], capture_output=True, text=True, check=True)
    assert {"run", "serve"} <= named <= {*re.findall(r"^  ([a-z-]+) ", done.stdout, re.MULTILINE)}
