"""Whether a run kept its promises: read from the ledgers and the stores of a run that is dead, not through its code.

Of the agents' and the controller's own code nothing is used here but the wire's messages, in which ledgers keep jobs.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_EXPIRED,
    JOB_STATE_FAILED,
    JOB_STATE_SUCCEEDED,
    Job,
)
from tests.chaos import work
from tests.chaos.plan import content
from tests.chaos.promises import JobPromise, Promises, object_name
from tests.chaos.witness import Start

FINAL = {JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED, JOB_STATE_EXPIRED}
MOST_STARTS = 10  # of a job that does not say how many it may have


@dataclass(frozen=True)
class Entry:
    """A job as one agent's ledger has it."""

    job: Job
    is_final: bool
    is_due_back: bool


@dataclass(frozen=True)
class Row:
    """An object as one agent's catalog has it."""

    size_bytes: int
    reasons: set[str]  # to keep it: "put", "job …"
    damaged: bool


@dataclass(frozen=True)
class Node:
    """What a node has left."""

    name: str
    store: Path
    jobs: dict[str, Entry]
    rows: dict[str, Row]  # what it knows of objects, by their digests
    objects: dict[str, int]  # whole and right ones, by digest: their sizes
    damaged: set[str]  # those whose bytes are others
    others: list[str]  # what else lies there: what came in part, what was set aside


@dataclass(frozen=True)
class Ledgers:
    """All that a run has left."""

    nodes: dict[str, Node]
    stands: dict[str, str]  # of each job that the controller knows
    holders: set[tuple[str, str]]  # object, node
    broken: list[str]  # what is wrong with a ledger itself


def read(stores: dict[str, Path], controller_db: Path) -> Ledgers:
    """Read what is left of a run; `stores`: of each node, by its name."""
    broken: list[str] = []
    nodes = {name: _node(name, store, broken) for name, store in stores.items()}
    db = _opened(controller_db, broken)
    stands = dict(db.execute("SELECT id, stands FROM jobs"))
    holders = set(db.execute("SELECT object, node FROM holders"))
    db.close()
    return Ledgers(nodes, stands, holders, broken)


def _opened(path: Path, broken: list[str]) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    verdict = db.execute("PRAGMA integrity_check").fetchall()
    if verdict != [("ok",)]:
        broken.append(f"{path}: {verdict}")
    return db


def _node(name: str, store: Path, broken: list[str]) -> Node:
    jobs = {}
    db = _opened(store / "journal.db", broken)
    for job_id, final, due_back, brief, stdout, stderr in db.execute(
        "SELECT id, final, due_back, brief, stdout, stderr FROM job"
    ):
        job = Job.FromString(brief)
        job.stdout, job.stderr = stdout, stderr
        jobs[job_id] = Entry(job, bool(final), bool(due_back))
        if bool(final) != (job.state in FINAL):
            broken.append(f"{name}: job {job_id} is final = {final}, and {_word(job)}")
    rows = {
        known.removeprefix("sha256:"): Row(size_bytes, set(json.loads(reasons)), bool(damaged))
        for known, size_bytes, reasons, damaged in db.execute("SELECT name, size_bytes, reasons, damaged FROM objects")
    }
    db.close()
    objects, damaged, others = {}, set(), []
    for path in (store / "objects").rglob("*"):
        if path.is_dir():
            continue
        content = path.read_bytes()
        if path.parent.name == "damaged":
            others.append(f"damaged/{path.name}")
        elif path.suffix:
            others.append(path.name)
        elif hashlib.sha256(content).hexdigest() == path.name:
            objects[path.name] = len(content)
        else:
            damaged.add(path.name)
    for digest, row in rows.items():
        is_here = row.size_bytes == objects.get(digest) or f"{digest}.part" in others
        if not is_here and digest not in damaged and not row.damaged:
            broken.append(
                f"{name}: the catalog has {digest} with {row.size_bytes} bytes, the folder {objects.get(digest)}"
            )
    broken += [
        f"{name}: nothing is known of the object {digest}" for digest in (objects.keys() | damaged) - rows.keys()
    ]
    return Node(name, store, jobs, rows, objects, damaged, sorted(others))


class Checker:
    """Holds what is left of a run to what it has promised."""

    def __init__(
        self,
        ledgers: Ledgers,
        promises: Promises,
        starts: list[Start],
        kills: list[tuple[float, str]],
        may_lie: set[str],
    ) -> None:
        """`may_lie`: files of stores that are no object's, and yet may be there."""
        self._ledgers, self._promises, self._starts, self._kills = ledgers, promises, starts, kills
        self._may_lie = may_lie

    def violations(self) -> list[str]:
        """All that is not as it must be, in words."""
        return [
            *self._ledgers.broken,
            *self._of_jobs(),
            *self._of_objects(),
            *self._of_starts(),
            *self._orphans(),
        ]

    # --- jobs ---

    def _of_jobs(self) -> Iterator[str]:
        for job_id, promise in self._promises.jobs.items():
            for wrong in self._of_job(promise):
                yield f"job {job_id}: {wrong}"
        for name, node in self._ledgers.nodes.items():
            for job_id, entry in node.jobs.items():
                if not entry.is_final:
                    yield f"job {job_id} is {_word(entry.job)} at {name}: {entry.job.reason}"
                elif entry.is_due_back:
                    yield f"job {job_id}: its result is still to be brought back from {name}"
        for job_id, stands in self._ledgers.stands.items():
            if stands not in ("ended", "refused"):
                yield f"job {job_id} stands {stands!r} in the controller's journal"

    def _of_job(self, promise: JobPromise) -> Iterator[str]:
        deed, spec = promise.deed, promise.spec
        entry = self._ledgers.nodes[deed.via].jobs.get(deed.id)
        if entry is None:
            yield f"{deed.via} took it, and does not know it"
            return
        job, starts = entry.job, [start for start in self._starts if start.job == deed.id]
        if job.spec != spec:
            yield f"{deed.via} has it with another spec"
        if not job.reason or not job.history or job.history[-1].state != job.state:
            yield "it has no reason, or its history does not end with its state"
        where = spec.on_node or deed.via
        yield from self._agrees(job, where)
        if any(start.node != where for start in starts):
            yield f"it was started at {sorted({start.node for start in starts} - {where})}, not at {where}"
        most = deed.max_attempts or MOST_STARTS
        if len(starts) > most:
            yield f"it was started {len(starts)} times, and may be {most} times"
        match job.state:
            case jobs_pb2.JOB_STATE_SUCCEEDED:
                yield from self._succeeded(promise, job, starts)
            case jobs_pb2.JOB_STATE_FAILED:
                yield from self._failed(promise, job, starts)
            case jobs_pb2.JOB_STATE_CANCELLED if not promise.cancelled:
                yield "it is cancelled, and nobody has asked for that"
            case jobs_pb2.JOB_STATE_EXPIRED if not spec.deadline_emu_ns:
                yield "it is expired, and has no deadline"

    def _agrees(self, job: Job, where: str) -> Iterator[str]:
        """The node that runs a job tells of it as the gateway does, or the gateway tells why not."""
        entry = self._ledgers.nodes[where].jobs.get(job.spec.id)
        if job.state in (JOB_STATE_CANCELLED, JOB_STATE_EXPIRED) or entry is None:
            if entry is None and job.state == JOB_STATE_SUCCEEDED:
                yield f"it has succeeded, and {where} does not know it"
            return
        there = entry.job
        if there.let_go:
            yield f"{where} has let go of it, and runs it"
        if (there.state, there.exit_status, there.attempt) != (job.state, job.exit_status, job.attempt):
            yield f"{where} has it {_word(there)}, attempt {there.attempt}: {there.reason}"
        if _outputs(there) != _outputs(job):
            yield f"{where} tells of other outputs"

    def _succeeded(self, promise: JobPromise, job: Job, starts: list[Start]) -> Iterator[str]:
        deed = promise.deed
        if not any(start.ends == 0 for start in starts):
            yield "it has succeeded, and was never seen to end well"
        if len(starts) > job.attempt:
            yield f"it was started {len(starts)} times, and tells of {job.attempt} attempts"
        after = [start.ordinal for start in starts if start.ends == 0][:1]
        if after and after[0] < len(starts) and not self._was_killed(starts[after[0] - 1].over_mono_s or 0.0):
            yield "it was started again after it had ended well, though no agent was killed then"
        digests = [object_name(self._content(number)).removeprefix("sha256:") for number in deed.inputs]
        expected = {
            name: object_name(content) for name, content in work.outputs(deed.id, deed.output_bytes, digests).items()
        }
        if _outputs(job) != expected:
            yield f"its outputs are {_outputs(job)}, not {expected}"
        if f"of {deed.id}\n".encode() not in job.stdout:
            yield f"its standard output is {job.stdout!r}"
        where = (promise.spec.on_node or deed.via) if deed.keeps_outputs else deed.via
        for output in job.outputs:
            if output.at_node != where:
                yield f"its output {output.name} is said to be at {output.at_node}, not at {where}"
            if output.object.removeprefix("sha256:") not in self._ledgers.nodes[where].objects:
                yield f"its output {output.name} is not whole at {where}"

    def _failed(self, promise: JobPromise, job: Job, starts: list[Start]) -> Iterator[str]:
        deed = promise.deed
        if job.exit_status == work.FAILED_STATUS:
            if len(starts) > max(deed.fails, 0) and starts[-1].ends == 0:
                yield f"it ended well at its last start, and is told to have failed: {job.reason}"
            elif deed.max_attempts > 1 and job.attempt < deed.max_attempts:
                yield f"it failed at attempt {job.attempt} of {deed.max_attempts}: {job.reason}"
        elif not any(words in job.reason for words in REASONS_TO_FAIL) and DISK_FULL not in job.stderr:
            yield "it failed for no reason that a plan has"

    def _was_killed(self, at_mono_s: float) -> bool:
        """Whether an agent was ended about then: before the end that it saw was on its disk."""
        return any(at_mono_s - 1.0 < killed_mono_s < at_mono_s + 15.0 for killed_mono_s, _ in self._kills)

    def _content(self, number: int) -> bytes:
        deed = self._promises.puts[number].deed
        return content(self._promises.seed, number, deed.size_bytes)

    def tale(self, job_id: str) -> str:
        """What everybody tells of a job, for people who look for what went wrong."""
        lines = [job_id]
        for name, node in self._ledgers.nodes.items():
            if entry := node.jobs.get(job_id):
                job = entry.job
                path = " → ".join(f"{jobs_pb2.JobState.Name(step.state)[10:]} ({step.reason})" for step in job.history)
                back = ", due back" if entry.is_due_back else ""
                lines.append(
                    f"    {name}: from {job.submitted_by!r} to {job.custodian!r}, "
                    f"returns to {job.spec.return_to!r}{back}, attempt {job.attempt}: {path}"
                )
        lines += [f"    {start}" for start in self._starts if start.job == job_id]
        return "\n".join(lines)

    # --- starts ---

    def _of_starts(self) -> Iterator[str]:
        for start in self._starts:
            if start.overlaps:
                yield f"job {start.job}: start {start.ordinal} came while another lived"
            if start.over_mono_s is None:
                yield f"job {start.job}: start {start.ordinal} lives on at {start.node}"
            if start.job not in self._promises.jobs and start.job not in self._known():
                yield f"job {start.job} was started, and nobody has taken it"

    def _known(self) -> set[str]:
        return {job_id for node in self._ledgers.nodes.values() for job_id in node.jobs}

    # --- objects ---

    def _of_objects(self) -> Iterator[str]:
        for promise in self._promises.puts.values():
            digest = promise.object.removeprefix("sha256:")
            holders = [promise.deed.via]
            for job_id in promise.keep_jobs:
                entry = self._ledgers.nodes[promise.deed.via].jobs.get(job_id)
                if entry is None:
                    yield f"object {promise.deed.number}: {promise.deed.via} does not know {job_id}, which keeps it"
                elif entry.job.state != JOB_STATE_SUCCEEDED:
                    yield f"object {promise.deed.number}: {job_id} is {_word(entry.job)}: {entry.job.reason}"
                else:
                    holders.append(entry.job.spec.on_node)
            for holder in holders:
                if self._ledgers.nodes[holder].objects.get(digest) != promise.size_bytes:
                    damaged = "damaged" if digest in self._ledgers.nodes[holder].damaged else "not whole"
                    yield f"object {promise.deed.number} ({digest}) is {damaged} at {holder}"
                elif (promise.object, holder) not in self._ledgers.holders:
                    yield f"object {promise.deed.number} is at {holder}, of which the controller does not know"

    # --- what must not be left ---

    def _orphans(self) -> Iterator[str]:
        for name, node in self._ledgers.nodes.items():
            for left in sorted((node.store / "scratch").iterdir()):
                yield f"{name} has kept {left.name} in its scratch folder"
            for digest in sorted(node.damaged):
                yield f"{name} has the damaged object {digest}"
            for other in sorted({*node.others} - self._may_lie):
                yield f"{name} has {other}, which nobody sends"
            for digest, row in node.rows.items():
                if row.damaged:
                    yield f"{name} has not repaired {digest}"
                for reason in sorted(row.reasons - {"put"}):
                    yield f"{name} has the object {digest} still for {reason}"
                if not row.reasons:
                    yield f"{name} has the object {digest}, which nobody needs"

    # --- figures ---

    def figures(self) -> dict[str, object]:
        """What became of it all."""
        jobs = [
            self._ledgers.nodes[promise.deed.via].jobs.get(job_id) for job_id, promise in self._promises.jobs.items()
        ]
        states = Counter(_word(entry.job) for entry in jobs if entry)
        held = Counter(entry.job.custodian == entry.job.spec.on_node for entry in jobs if entry and entry.job.custodian)
        return {
            "jobs": dict(states),
            "starts": len(self._starts),
            "attempts beyond the first": sum(entry.job.attempt - 1 for entry in jobs if entry),
            "handed to their node": held[True],
            "into custody": held[False],
            "objects": len(self._promises.puts),
            "replicas": sum(len(promise.keep_jobs) for promise in self._promises.puts.values()),
            "bytes at nodes": sum(sum(node.objects.values()) for node in self._ledgers.nodes.values()),
        }


DISK_FULL = b"No space left on device"  # a program's own word for it
REASONS_TO_FAIL = (
    "the agent ended during attempt",  # and no other is allowed
    "no room for", "disk is full", "cannot be written",  # what a full disk or store comes to
    "is damaged", "was found damaged", "hash to sha256:",  # an input, where it lies
)  # fmt: skip


def _outputs(job: Job) -> dict[str, str]:
    return {output.name: output.object for output in job.outputs}


def _word(job: Job) -> str:
    return jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
