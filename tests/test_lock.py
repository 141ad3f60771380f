"""The lock file of a deployment pins every dependency of pyproject.toml, within its bounds, with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "deploy" / "requirements.lock").read_text()
BOX = (ROOT / "deploy" / "edge-requirements.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS, BOX_PINS = (dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE)) for text in (LOCK, BOX))
NOT_ON_A_BOX = {"matplotlib", "timm", "torch", "torchvision"}
ADVISED = {"starlette": "0.47.1", "jinja2": "3.1.5", "h11": "0.15.0", "pillow": "12.1.0", "torch": "2.5.1"}


def requirements(group: str = "build") -> list[Requirement]:
    project = PROJECT["project"]
    texts = [
        *project["dependencies"],
        *project["optional-dependencies"]["webrtc"],
        *PROJECT["dependency-groups"][group],
    ]
    return [Requirement(text) for text in texts]


def test_the_lock_pins_each_dependency_within_its_bounds() -> None:
    for requirement in requirements():
        pinned = PINS.get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{requirement.name} is not locked; run `make lock`"
        assert requirement.specifier.contains(pinned), f"{requirement} against {pinned}; run `make lock`"


def test_a_camera_box_has_the_same_packages_but_the_large_ones() -> None:
    for requirement in requirements("box"):
        name = canonicalize_name(requirement.name)
        assert (name in BOX_PINS) == (name not in NOT_ON_A_BOX), f"{name}: run `make lock`"
        assert name in NOT_ON_A_BOX or requirement.specifier.contains(BOX_PINS[name]), f"{name}: run `make lock`"
    assert {name for name, version in BOX_PINS.items() if PINS.get(name, version) != version} == set()
    assert [name for name in BOX_PINS if name.startswith(("nvidia", "triton", *NOT_ON_A_BOX))] == []
    overrides = (ROOT / "deploy" / "edge-overrides.txt").read_text().splitlines()
    assert {line.partition(";")[0] for line in overrides if not line.startswith("#")} == NOT_ON_A_BOX


@pytest.mark.parametrize("lock", [LOCK, BOX], ids=["deployment", "box"])
def test_each_pin_has_hashes_and_no_place_to_download_from(lock: str) -> None:
    for block in re.split(r"\n(?=[a-z0-9])", lock.partition("\n\n")[0].split("make lock\n", 1)[-1]):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.splitlines()[0]
    assert "://" not in lock
    assert "index" not in lock


def test_releases_with_known_advisories_are_out_of_bounds() -> None:
    bounds = {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements()}
    assert {name for name, version in ADVISED.items() if bounds[name].contains(version)} == set()


def test_the_image_installs_the_lock_and_services_may_open_enough_files() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "--require-hashes -r requirements.lock" in dockerfile
    box = (ROOT / "deploy" / "Dockerfile.edge").read_text()
    assert "--no-deps --require-hashes -r edge-requirements.txt" in box
    assert "--no-deps --no-build-isolation ." in box
    for unit in (ROOT / "deploy").glob("*.service"):
        limit = re.search(r"^LimitNOFILE=(\d+)$", unit.read_text(), re.MULTILINE)
        assert limit is not None, f"{unit.name} has no LimitNOFILE"
        assert int(limit[1]) >= 4096
