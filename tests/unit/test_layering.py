"""The rules of the house about who may import whom, walked over every import of the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE_ROOMS = (
    "orbit", "links", "scenario", "timeline", "columns", "faults", "planner", "expand", "schedule", "explain",
    "outlook", "timeline_checks", "timeline_format", "jobs.contact_graph", "jobs.placement", "jobs.policies",
)  # fmt: skip
PURE_LIBRARIES = {"numpy", "scipy", "sgp4", "pydantic", "pydantic_core"}
PURE_FORBIDDEN_STDLIB = {"socket", "asyncio", "subprocess", "threading", "time", "select", "signal", "multiprocessing"}
OWNERS = {
    "cryptography": ("controller/authority.py", "node_agent/security/identity.py", "node_agent/objects/sealing.py"),
    "docker": tuple(f"controller/runtime/{file}.py" for file in ("docker", "engine", "user_images")),
    "pyeclib": ("controller/coding.py", "node_agent/objects/mending.py"),
    "sgp4": ("controller/orbit/",),
    "grpc": ("controller/api/", "controller/agents.py", "node_agent/"),
    "wasmtime": ("node_agent/jobs/wasm.py",),
    "plotly": ("controller/record/",),
    "rich": ("controller/cli/",),
    "click": ("controller/cli/",),
}


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, wherever in the file the import stands."""
    found: list[str] = []
    for item in ast.walk(ast.parse(path.read_text())):
        if isinstance(item, ast.Import):
            found += (alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            assert item.level == 0, f"{path}: relative import"
            found.append(item.module or "")
    return tuple(found)


def sources() -> list[Path]:
    """The project's own source files, without the generated stubs."""
    return sorted(path for room in ("controller", "node_agent") for path in (ROOT / room).rglob("*.py"))


def place(path: Path) -> str:
    """A file's path from the root, with slashes."""
    return path.relative_to(ROOT).as_posix()


def room(parts: Sequence[str]) -> str:
    """The pure room of a module below controller: a folder, a file, or a file of a folder; empty if it is in none."""
    return next((name for name in (parts[0], ".".join(parts[:2])) if name in PURE_ROOMS), "") if parts else ""


def room_of(path: Path) -> str:
    """The pure room that a file belongs to, if it does."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return room(parts[1:]) if parts[0] == "controller" else ""


def test_the_walk_sees_the_house() -> None:
    """The rules below are held against real files, and every pure room exists."""
    assert {room_of(path) for path in sources()} == {*PURE_ROOMS, ""}


@pytest.mark.parametrize("path", [path for path in sources() if room_of(path)], ids=place)
def test_pure_rooms_import_only_pure_things(path: Path) -> None:
    """Pure rooms use numpy, scipy, sgp4, pydantic, each other, and of the standard library what has no effects."""
    for module in imports(path):
        top, *rest = module.split(".")
        assert top not in PURE_FORBIDDEN_STDLIB, f"{place(path)} imports {module}"
        if top == "controller":
            assert room(rest) or module in ("controller.errors", "controller.fabric.plan"), (
                f"{place(path)} imports {module}"
            )
        else:
            assert top not in ("node_agent", "protos"), f"{place(path)} imports {module}"
            assert top in sys.stdlib_module_names | PURE_LIBRARIES, f"{place(path)} imports {module}"


@pytest.mark.parametrize("path", sources(), ids=place)
def test_each_library_has_its_room(path: Path) -> None:
    """Docker, gRPC, sgp4 and the like are each imported where they belong, and nowhere else."""
    for module in imports(path):
        allowed = OWNERS.get(module.split(".")[0])
        assert allowed is None or place(path).startswith(allowed), f"{place(path)} imports {module}"


def test_controller_and_agent_share_only_the_wire() -> None:
    """Neither program imports the other."""
    for path in sources():
        other = "node_agent" if place(path).startswith("controller/") else "controller"
        assert other not in {module.split(".")[0] for module in imports(path)}, place(path)
