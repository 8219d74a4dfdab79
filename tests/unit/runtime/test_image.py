"""The node image's name follows what goes into it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.runtime.image import NODE_PACKAGES, PROJECT_ROOT, agent_sources, image_name, locked_blocks, node_image

LOCK = (PROJECT_ROOT / "requirements.lock").read_text()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small source tree with everything that an image is made of."""
    for folder in ("deploy", "node_agent", "protos/skyrack"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "deploy/Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / "node_agent/main.py").write_text("print('agent')\n")
    (tmp_path / "protos/skyrack/node_pb2.py").write_text("wire = 1\n")
    return tmp_path


@pytest.mark.parametrize("path", ["deploy/Dockerfile", "node_agent/main.py", "protos/skyrack/node_pb2.py"])
def test_any_changed_ingredient_is_another_image(tree: Path, path: str) -> None:
    """An image is never older than the source: a change of the Dockerfile, the agent or the wire renames it."""
    before = image_name(tree)
    (tree / path).write_text((tree / path).read_text() + "\n")
    assert image_name(tree) != before


def test_a_new_file_of_the_agent_is_another_image(tree: Path) -> None:
    """A file that is added counts, also when it is empty."""
    before = image_name(tree)
    (tree / "node_agent/new.py").touch()
    assert image_name(tree) != before


def test_a_package_of_the_node_that_changes_is_another_image(tree: Path) -> None:
    """Another version of what the agent imports renames the image."""
    before = image_name(tree)
    (tree / "requirements.lock").write_text(LOCK.replace("grpcio==", "grpcio==9", 1))
    assert image_name(tree) != before


def test_what_does_not_go_in_does_not_count(tree: Path) -> None:
    """Compiled files, the controller's packages and other files leave the image as it is."""
    before = image_name(tree)
    (tree / "node_agent/__pycache__").mkdir()
    (tree / "node_agent/__pycache__/main.cpython-311.pyc").write_bytes(b"compiled")
    (tree / "README.md").write_text("words")
    (tree / "requirements.lock").write_text(LOCK.replace("scipy==", "scipy==9", 1))
    assert image_name(tree) == before


def test_the_lock_pins_every_package_of_the_node_with_hashes() -> None:
    """What goes into nodes is pinned and hashed, numpy once for each range of Python versions."""
    blocks = locked_blocks(LOCK)
    assert {block.split("==")[0] for block in blocks} == set(NODE_PACKAGES)
    assert all("--hash=sha256:" in block for block in blocks)
    assert not any("#" in block for block in blocks)


def test_a_lock_without_a_package_is_an_error_that_names_it() -> None:
    """A package which the node needs and the lock lacks is named."""
    with pytest.raises(ValueError, match="pins no protobuf"):
        locked_blocks(LOCK.replace("protobuf==", "protobug=="))


def test_the_real_tree_has_an_image_with_the_agent_in_it() -> None:
    """The source that runs has an image name, made from the agent's own files."""
    name, _, tag = node_image().partition(":")
    assert name == "skyrack-node"
    assert len(tag) == 16
    assert Path("node_agent/main.py") in agent_sources(PROJECT_ROOT)
