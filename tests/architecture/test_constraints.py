"""constraints.txt pins everything that an installation brings in, at the versions under test, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = ("offline", "track", "augment", "tune", "dev")
# CUDA builds of torch bring these in, each pinned by torch itself.
CUDA = ("nvidia-", "cuda-", "triton")


def iter_requirements(name: str, extras: tuple[str, ...]) -> Iterator[Requirement]:
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def list_installed() -> dict[str, str]:
    """Versions of everything that the package and its extras need, directly or not, by canonical name."""
    found: dict[str, str] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [("submillion", EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen or name.startswith(CUDA):
            continue
        seen.add((name, extras))
        if name != "submillion":
            found[name] = distribution(name).version
        waiting += [(canonicalize_name(r.name), tuple(sorted(r.extras))) for r in iter_requirements(name, extras)]
    return found


@pytest.fixture(scope="module")
def pins() -> dict[str, SpecifierSet]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements}


def test_everything_installed_is_pinned_at_its_version(pins: dict[str, SpecifierSet]) -> None:
    installed = list_installed()
    assert sorted(installed.keys() - pins.keys()) == [], "not pinned in constraints.txt"
    wrong = {name: version for name, version in installed.items() if version not in pins[name]}
    assert wrong == {}, "installed versions differ from constraints.txt"


def test_nothing_else_is_pinned(pins: dict[str, SpecifierSet]) -> None:
    assert sorted(pins.keys() - list_installed().keys()) == [], "pinned, but nothing needs it"


def test_pins_are_exact_and_leave_the_build_to_the_index(pins: dict[str, SpecifierSet]) -> None:
    for name, specifier in pins.items():
        assert [one.operator for one in specifier] == ["=="], name
        assert "+" not in str(specifier), f"{name}: a build tag ties the pin to one index"
