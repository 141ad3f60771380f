"""The wheel and the sdist: their content, and what works where only the wheel is installed.

Both are built from a copy of the checkout. The wheel is installed into a virtual environment that holds nothing else of
Sagelink. The dependencies are those of the running interpreter, so nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.test_imports import HEAVY, LAYERS

ROOT = Path(__file__).parents[1]
FOLDERS = [layer for layer in LAYERS if layer != "bench"]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
DATA = ("models/frontiers", "monitor/camera", "monitor/templates", "monitor/static")

OWN_PROGRAM = """\
from sagelink import UplinkBudget, load_config

config = load_config(None, {"capture.source": "synthetic:5"})
budget: UplinkBudget = UplinkBudget(rate_bps=64_000, window_s=config.budget.window)
"""


def python_blocks(page: Path) -> Iterator[str]:
    yield from re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


SNIPPETS = {
    f"{page.relative_to(ROOT)}-{number}": block
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    for number, block in enumerate(python_blocks(page), 1)
}


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment, and the folder in which its commands run."""

    folder: Path
    work: Path

    @property
    def python(self) -> Path:
        return self.folder / SCRIPTS / "python"

    def run(self, *arguments: str | Path) -> str:
        """Runs its Python; returns what it printed."""
        return run([self.python, *arguments], self.work)

    def package(self) -> Path:
        """The folder of the installed package."""
        return Path(self.run("-c", "import sagelink; print(sagelink.__path__[0])").strip())


def run(command: list[str | Path], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(kind: Literal["sdist", "wheel"], checkout: Path, output: Path) -> Path:
    """Builds without pip and without downloads; returns the file."""
    run(
        [sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_{kind}({str(output)!r})"], checkout
    )
    (file,) = output.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return file


def install(wheel: Path, folder: Path) -> Environment:
    """Makes a virtual environment that holds the wheel; dependencies come from the running interpreter."""
    environment = Environment(folder / "environment", folder)
    venv.create(environment.folder, symlinks=os.name != "nt")
    pip = [sys.executable, "-m", "pip", "--python", environment.python, "install", "--no-deps", "--no-index", wheel]
    run(pip, folder)
    site_packages = environment.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(site_packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("build")
    copy, output = folder / "checkout", folder / "output"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("src", *FOLDERS):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    sdist = build("sdist", copy, output)
    return build("wheel", copy, output), sdist


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return install(built[0], tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    assert {name.split("/")[0].split("-")[0] for name in files} == {"sagelink"}
    expected = {f"sagelink/{path.name}": path for path in (ROOT / "src/sagelink").iterdir() if path.is_file()}
    for folder in FOLDERS:
        expected |= {f"sagelink/{path.relative_to(ROOT)}": path for path in (ROOT / folder).rglob("*.py")}
    for folder in DATA:
        paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
        expected |= {f"sagelink/{path.relative_to(ROOT)}": path for path in paths}
    expected |= {
        f"sagelink/models/demo/{name}": ROOT / "models/demo" / name
        for name in ("edge.safetensors", "server.safetensors")
    }
    assert "sagelink/py.typed" in expected
    package = {name: content for name, content in files.items() if name.startswith("sagelink/")}
    assert sorted(package) == sorted(expected)
    assert [name for name, content in package.items() if content != expected[name].read_bytes()] == []


def test_the_sdist_builds_the_same_wheel(built, tmp_path):
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert not any(path.is_symlink() for path in unpacked.rglob("*"))
    again = build("wheel", unpacked, tmp_path / "output")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        crcs = [{info.filename: info.CRC for info in archive.infolist()} for archive in (one, other)]
    assert len(crcs[0]) > 400
    assert crcs[0] == crcs[1]


def test_the_package_comes_from_the_environment_and_loads_nothing_heavy(installed):
    names = sorted(HEAVY | {"pydantic"})
    loaded = installed.run("-c", f"import sys, sagelink; print([name for name in {names} if name in sys.modules])")
    assert loaded.strip() == "[]"
    assert installed.package().is_relative_to(installed.folder)
    exported = installed.run("-c", "import sagelink; print(*(getattr(sagelink, name) for name in sagelink.__all__))")
    assert "UplinkBudget" in exported


def test_both_forms_of_the_command_work(installed):
    assert "Usage" in installed.run("-m", "sagelink", "--help")
    assert "Usage" in run([installed.folder / SCRIPTS / "sagelink", "--help"], installed.work)


def test_the_programs_in_the_documents_run(installed):
    """One after another in one process, which imports PyTorch once."""
    assert {name.rpartition("-")[0] for name in SNIPPETS} >= {"CONTRIBUTING.md", "docs/graph.md"}
    paths = []
    for name, snippet in SNIPPETS.items():
        paths.append(installed.work / f"{name.replace('/', '-')}.py")
        paths[-1].write_text(snippet, encoding="utf-8")
    runner = "import runpy, sys\nfor path in sys.argv[1:]: print(path); runpy.run_path(path)"
    installed.run("-c", runner, *paths)


@pytest.mark.campaign
def test_a_type_checker_reads_the_installed_types(installed):
    (installed.work / "own.py").write_text(OWN_PROGRAM)
    large = "[mypy]\n[mypy-torch.*,torchvision.*,timm.*,cv2.*,matplotlib.*,scipy.*,pandas.*]\nfollow_imports = skip\n"
    (installed.work / "mypy.ini").write_text(large)  # reading their types takes half a minute
    checker = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python]
    wrong = "import sagelink\n\nsagelink.UplinkBudget('fast', 1.0)  # type: ignore[arg-type]\n"  # unused: an error
    (installed.work / "wrong.py").write_text(wrong)
    assert "Success" in run([*checker, "--cache-dir", "mypy-cache", "own.py", "wrong.py"], installed.work)
