"""The packages of a node fit the Python of its base, whichever Python builds it."""

from __future__ import annotations

import re

import pytest

from controller.runtime.image import NODE_PACKAGES, PROJECT_ROOT
from deploy.build_image import Interpreter, requirements_for

LOCK = (PROJECT_ROOT / "requirements.lock").read_text()


@pytest.mark.parametrize("version", [(3, 11, 2), (3, 12, 9), (3, 13, 1)])
def test_one_version_of_each_package_is_chosen_for_the_bases_python(version: tuple[int, int, int]) -> None:
    """Markers are resolved for the base's Python: each package stands once, hashed, without a marker."""
    wanted = requirements_for(LOCK, Interpreter(version, "x86_64", 36))
    pins = re.findall(r"^([a-z0-9-]+)==(\S+) \\$", wanted, re.MULTILINE)
    assert sorted(name for name, _ in pins) == sorted(NODE_PACKAGES)
    assert ";" not in wanted


def test_the_choice_follows_the_python() -> None:
    """Where the lock has two versions of numpy, each Python gets its own."""
    old, new = (requirements_for(LOCK, Interpreter((3, minor, 0), "x86_64", 36)) for minor in (11, 12))
    assert old != new


def test_platforms_reach_from_the_bases_glibc_down() -> None:
    """A wheel for an older glibc runs, one for a newer does not (PEP 600)."""
    platforms = Interpreter((3, 12, 0), "aarch64", 31).platforms()
    assert platforms[0] == "manylinux_2_31_aarch64"
    assert "manylinux_2_17_aarch64" in platforms
    assert "manylinux_2_34_aarch64" not in platforms
