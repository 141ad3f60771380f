"""The lock file of a deployment pins every dependency of pyproject.toml, within its bounds, with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "deploy" / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", LOCK, re.MULTILINE))
ADVISED = {"starlette": "0.47.1", "jinja2": "3.1.5", "h11": "0.15.0", "pillow": "12.1.0", "torch": "2.5.1"}


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    texts = [
        *project["dependencies"],
        *project["optional-dependencies"]["webrtc"],
        *PROJECT["dependency-groups"]["build"],
    ]
    return [Requirement(text) for text in texts]


def test_the_lock_pins_each_dependency_within_its_bounds() -> None:
    for requirement in requirements():
        pinned = PINS.get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{requirement.name} is not locked; run `make lock`"
        assert requirement.specifier.contains(pinned), f"{requirement} against {pinned}; run `make lock`"


def test_each_pin_has_hashes_and_no_place_to_download_from() -> None:
    for block in re.split(r"\n(?=[a-z0-9])", LOCK.partition("\n\n")[0].split("make lock\n", 1)[-1]):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.splitlines()[0]
    assert "://" not in LOCK
    assert "index" not in LOCK


def test_releases_with_known_advisories_are_out_of_bounds() -> None:
    bounds = {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements()}
    assert {name for name, version in ADVISED.items() if bounds[name].contains(version)} == set()


def test_the_image_installs_the_lock_and_services_may_open_enough_files() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "--require-hashes -r requirements.lock" in dockerfile
    for unit in (ROOT / "deploy").glob("*.service"):
        limit = re.search(r"^LimitNOFILE=(\d+)$", unit.read_text(), re.MULTILINE)
        assert limit is not None, f"{unit.name} has no LimitNOFILE"
        assert int(limit[1]) >= 4096
