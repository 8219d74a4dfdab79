"""What a run has acknowledged to its clients: what the checker holds it to. Of several threads."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field

from protos.skyrack.v1 import jobs_pb2
from tests.chaos.plan import Put, Submit


@dataclass
class PutPromise:
    """An object that is said to be stored."""

    deed: Put
    object: str
    size_bytes: int
    keep_jobs: list[str] = field(default_factory=list)  # the jobs of the keep that was answered


@dataclass
class JobPromise:
    """A job that is said to be taken."""

    deed: Submit
    spec: jobs_pb2.JobSpec  # as the controller answered
    cancelled: bool = False  # its end was asked for, and that was answered
    suspended: threading.Event = field(default_factory=threading.Event)  # that was asked for, and answered


class Promises:
    """All of them, and what went wrong with a client that it cannot have meant."""

    def __init__(self, seed: int) -> None:
        self.seed = seed  # of what was put
        self.puts: dict[int, PutPromise] = {}
        self.jobs: dict[str, JobPromise] = {}
        self.given_up: list[str] = []
        """Deeds of the load that nobody acknowledged in time."""
        self.refused: list[str] = []
        """Deeds that were refused, and why."""
        self._changed = threading.Condition()

    def put(self, promise: PutPromise) -> None:
        """Remember an object."""
        with self._changed:
            self.puts[promise.deed.number] = promise
            self._changed.notify_all()

    def job(self, promise: JobPromise) -> None:
        """Remember a job."""
        with self._changed:
            self.jobs[promise.deed.id] = promise
            self._changed.notify_all()

    def wait_for_put(self, number: int, wait_s: float) -> PutPromise | None:
        """An object, once it is stored; None if it is not in time."""
        with self._changed:
            self._changed.wait_for(lambda: number in self.puts, wait_s)
            return self.puts.get(number)

    def wait_for_job(self, job_id: str, wait_s: float) -> JobPromise | None:
        """A job, once it is taken; None if it is not in time."""
        with self._changed:
            self._changed.wait_for(lambda: job_id in self.jobs, wait_s)
            return self.jobs.get(job_id)


def object_name(content: bytes) -> str:
    """sha256:…"""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
