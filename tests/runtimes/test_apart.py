"""Jobs with users of their own: all that holds of jobs anyway, and what they cannot reach. Root."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.test_execution import (  # noqa: F401 — the same, with users of their own
    test_a_job_goes_on_from_its_checkpoint,
    test_a_job_has_the_network_only_if_it_asks,
    test_a_killed_agents_job_ends_and_its_checkpoint_is_rescued,
    test_a_start_may_be_cancelled_at_any_moment,
    test_a_suspended_job_can_be_cancelled,
    test_a_suspended_job_stands_still_and_its_time_too,
    test_each_limit_holds_and_is_told,
    test_only_plain_files_become_outputs,
    test_outputs_without_end_are_refused_and_removed,
    test_what_a_job_is_given_does_not_count_as_disk_used,
    test_what_is_printed_is_kept_followed_and_begun_anew,
)
from tests.executing import FIRST_JOB_USER, PROCESSES, executed


@pytest.fixture
def apart() -> bool:
    """Whether jobs are users of their own: here they are."""
    return True


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the node keeps what it has; every user can get there."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="skyrack-test-") as name:
        Path(name).chmod(0o711)
        made = Path(name, "node")
        made.mkdir()
        made.chmod(0o711)
        yield made


def test_a_job_reaches_nothing_that_is_not_its_own(folder: Path) -> None:
    """Objects, keys, the control socket, the agent's memory and environment, another job's files and processes: none.

    A job has a user and a group of its own, no other group, and no capability.
    """
    tried, status = json.loads(executed("apart", folder, apart=True)["stdout"])
    assert set(tried.values()) == {"Permission denied", "Operation not permitted"}, tried
    assert len(tried) == 13
    assert status["Uid"].split() == status["Gid"].split() == [str(FIRST_JOB_USER + 1)] * 4
    assert status["Groups"].split() == []
    assert (int(status["CapPrm"], 16), int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, 0, "1")


def test_nothing_escapes_the_end_of_its_job(folder: Path) -> None:
    """A daemon that has cleared its environment and left session and parent is stopped and killed with its job."""
    answer = executed("escapees", folder, apart=True)
    assert answer["state"] == "T"
    assert answer["after_cancel"] == answer["after"] == []
    assert answer["ended"]["succeeded"]


def test_a_job_spoils_the_node_for_no_other(folder: Path) -> None:
    """What it leaves in /tmp and in shared memory is removed with it; it has so many processes and no more."""
    answer = executed("spoilt", folder, apart=True)
    assert answer["spoiler"]["stdout"] == "No space left on device\nNo space left on device\nTrue\n"
    assert answer["after"] == {"/tmp": [], "/dev/shm": []}  # noqa: S108
    assert answer["shared"] == 0
    count, _, why = answer["bomber"]["stdout"].partition(" ")
    assert why == "Resource temporarily unavailable\n"
    assert PROCESSES - 4 < int(count) < PROCESSES, "one that has just ended may count for a moment longer"
    assert answer["processes"] == 2, "the first process and the agent"


def test_an_agent_that_was_taken_over_gets_no_further(folder: Path) -> None:
    """Whatever it says to the first process, and with whatever descriptors, that lives and answers; and it starts no
    program as root."""
    answer = executed("compromised", folder, apart=True, module="tests.fuzz.compromised")
    assert answer["restarts"] == 0
    assert answer["asked"] == 30
    assert "for one of them" in answer["refused"]
    assert answer["ended"]["stdout"] == "well\n"
    assert "Traceback" not in answer["said"]
