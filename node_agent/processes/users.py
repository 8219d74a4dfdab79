"""Whom the processes of a node run as.

The first process stays root, with three capabilities: to change users, and to end processes of others. The agent is a
user of its own, and so is every job: none reaches another's files or processes. Where a node has one user only (a user
namespace that an ordinary user made, an agent started by hand), all of them are that one, without a capability, and
what keeps jobs from the agent's files is good manners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

JOB_USERS = 64
"""How many jobs of a node may have processes at a time: those that run, and those that are suspended."""


@dataclass(frozen=True)
class Users:
    """A node's users; each has a group of the same number."""

    agent: int
    first_of_jobs: int
    processes: int  # as many may one of jobs' have, threads counted

    @property
    def of_jobs(self) -> Sequence[int]:
        """Those of jobs, by their numbers."""
        return range(self.first_of_jobs, self.first_of_jobs + JOB_USERS)
