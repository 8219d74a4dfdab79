"""Plans handed over through memory: whole, by the moment of each frame, and from one process to another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from controller.fabric.delay_line import RECORDS
from controller.fabric.plan_memory import DROPPED, LOST, PLANS, PlanMemory

N_PORT = 500
READS = 100_000

# Reads ports at random moments until so many reads have been, while plans are being published by its parent. Prints how
# many plans it saw, and how many records were not of one plan.
READER = """
import random, sys, time
from controller.fabric.plan_memory import PlanMemory
memory, n_port, reads = PlanMemory(int(sys.argv[1]), int(sys.argv[2])), int(sys.argv[2]), int(sys.argv[3])
seen, torn, dice = set(), 0, random.Random(1)
for _ in range(reads):
    record = memory.state(dice.randrange(n_port), time.monotonic_ns() - dice.randrange(1_000_000))
    seen.add(record[1])
    torn += len(set(record)) != 1
print(len(seen), torn)
"""


@pytest.fixture
def memory() -> Iterator[PlanMemory]:
    """An empty one."""
    descriptor = _descriptor()
    opened = PlanMemory(descriptor, N_PORT)
    yield opened
    opened.close()
    os.close(descriptor)


def _descriptor() -> int:
    descriptor = os.memfd_create("plans")
    os.ftruncate(descriptor, PlanMemory.size_bytes(N_PORT))
    return descriptor


def _plan(number: int) -> bytes:
    """A plan of which every word says its number."""
    records = np.zeros(N_PORT, RECORDS)
    for name in RECORDS.names or ():
        records[name] = number
    return records.tobytes()


def test_a_frame_is_judged_by_the_plan_that_held_when_it_was_sent(memory: PlanMemory) -> None:
    """Each plan holds from its moment until the next one's; the first holds for whatever is older."""
    for number in range(1, PLANS):
        memory.publish(_plan(number), 1_000 * number)
    for number in range(1, PLANS):
        assert memory.state(7, 1_000 * number)[0] == number
        assert memory.state(N_PORT - 1, 1_000 * number + 999)[0] == number
    assert memory.state(0, 0)[0] == 1


def test_what_is_older_than_all_that_is_kept_is_judged_by_the_oldest_that_is_safe(memory: PlanMemory) -> None:
    """However many plans there were: the oldest slot may be written at any moment, and is not read."""
    for number in range(1, 3 * PLANS):
        memory.publish(_plan(number), 1_000 * number)
    assert memory.state(0, 0)[0] == 3 * PLANS - 1 - (PLANS - 2)


def test_no_record_is_read_torn_while_plans_come_as_fast_as_they_can() -> None:
    """Another process reads while plan after plan is published: each record that it reads is of one plan."""
    descriptor = _descriptor()
    memory = PlanMemory(descriptor, N_PORT)
    memory.publish(_plan(1), 0)
    command = [sys.executable, "-c", READER, str(descriptor), str(N_PORT), str(READS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[descriptor]) as reader:
        number = 1
        plans = [_plan(each) for each in range(100)]
        while reader.poll() is None:
            number += 1
            memory.publish(plans[number % 100], 0)
        assert reader.stdout is not None
        seen, torn = (int(each) for each in reader.stdout.read().split())
    memory.close()
    os.close(descriptor)
    assert reader.returncode == 0
    assert seen > 1, "plans were published in the midst of reading"
    assert torn == 0


def test_what_is_held_is_shown_and_what_is_lost_is_counted(memory: PlanMemory) -> None:
    """The newest plan is shown as it is, and counters are kept by port and cause."""
    memory.publish(_plan(1), 10)
    memory.publish(_plan(2), 20)
    assert memory.show_held() == 2
    assert memory.held() == _plan(2)
    memory.count(3, LOST)
    memory.count(3, DROPPED)
    memory.count(3, DROPPED)
    counters = np.frombuffer(memory.counters(), np.int64).reshape(-1, 2)
    assert counters[3].tolist() == [1, 2]
    assert counters.sum() == 3
