"""What Docker's runtime has beyond the contract that tests/runtimes holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import MachineError, SkyrackError
from controller.runs import RunPlace
from controller.runtime.docker import DockerRuntime
from controller.runtime.engine import connect
from tests.runtimes.test_contract import MEMORY_BYTES, PIDS_LIMIT, ignore, specs_of


@pytest.fixture
def runtime() -> Iterator[DockerRuntime]:
    """The runtime as the controller has it."""
    opened = DockerRuntime()
    yield opened
    opened.close()


@pytest.fixture
def place(runtime: DockerRuntime) -> Iterator[RunPlace]:
    """A run's place; whatever its test started is removed."""
    with RunPlace.create("test", Path("/out"), 4) as made:
        yield made
        runtime.remove(made.run_id)


def test_a_container_is_made_with_its_limits(runtime: DockerRuntime, place: RunPlace) -> None:
    """Memory, CPU and process limits are the specified ones, there is no swap, and nothing restarts by itself."""
    runtime.start(specs_of(place, 1), ignore)
    client = connect()
    try:
        limits = client.containers.get(f"skyrack-{place.run_id}-node0").attrs["HostConfig"]
    finally:
        client.close()
    assert limits["Memory"] == limits["MemorySwap"] == MEMORY_BYTES
    assert limits["NanoCpus"] == 500_000_000
    assert limits["PidsLimit"] == PIDS_LIMIT
    assert limits["RestartPolicy"]["Name"] == "no"


def test_a_strangers_container_outlives_the_removal_of_a_run(runtime: DockerRuntime, place: RunPlace) -> None:
    """Only what carries the run's label is removed."""
    client = connect()
    stranger = client.containers.create(runtime.image, network_mode="none", labels={"somebody": "else"})
    try:
        runtime.start(specs_of(place, 2), ignore)
        assert runtime.remove(place.run_id) == 2
        stranger.reload()
    finally:
        stranger.remove(force=True)
        client.close()


def test_a_missing_image_is_told_before_anything_starts(place: RunPlace) -> None:
    """Without the image the user is told how to build it, and no container is made."""
    runtime = DockerRuntime("skyrack-node:nobody-built-this")
    try:
        with pytest.raises(MachineError, match="nobody-built-this has not been built: run `make setup`"):
            runtime.start(specs_of(place, 1), ignore)
        assert place.run_id not in runtime.run_ids()
    finally:
        runtime.close()


def test_a_node_that_exists_already(runtime: DockerRuntime, place: RunPlace) -> None:
    """Docker's refusal names the node and carries Docker's reason."""
    runtime.start(specs_of(place, 1), ignore)
    with pytest.raises(SkyrackError, match=r"Docker could not start the node node0: .*already in use"):
        runtime.start(specs_of(place, 1), ignore)
