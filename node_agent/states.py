"""Life of a job: which state may follow which, and why. Decides; does nothing."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from node_agent.errors import AlreadyExists, InvalidArgument
from node_agent.store import digest_of
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_EXPIRED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_TRANSIT,
    JOB_STATE_QUEUED,
    JOB_STATE_RETURNING,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JOB_STATE_SUSPENDED,
    JOB_STATE_WAITING_CONTACT,
)

State: TypeAlias = jobs_pb2.JobState.ValueType

_BROKEN_OFF: Final = frozenset({JOB_STATE_FAILED, JOB_STATE_CANCELLED, JOB_STATE_EXPIRED})
FINAL: Final = _BROKEN_OFF | {JOB_STATE_SUCCEEDED}
# The node has accepted the job: from here on its own journal answers for it.
AT_NODE: Final = frozenset({JOB_STATE_QUEUED, JOB_STATE_RUNNING, JOB_STATE_SUSPENDED, JOB_STATE_RETURNING})

# A gateway sees the states of a job at a node through breaks, and so may miss any between two that it sees. What is at
# a node goes back to IN_TRANSIT when the node has lost it (its store was emptied); RUNNING goes back to QUEUED when the
# agent was restarted under it.
TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    JOB_STATE_WAITING_CONTACT: _BROKEN_OFF | {JOB_STATE_IN_TRANSIT},
    JOB_STATE_IN_TRANSIT: _BROKEN_OFF | AT_NODE | {JOB_STATE_WAITING_CONTACT},
    JOB_STATE_QUEUED: _BROKEN_OFF | {JOB_STATE_RUNNING, JOB_STATE_SUSPENDED, JOB_STATE_RETURNING, JOB_STATE_IN_TRANSIT},
    JOB_STATE_RUNNING: FINAL | {JOB_STATE_QUEUED, JOB_STATE_SUSPENDED, JOB_STATE_RETURNING, JOB_STATE_IN_TRANSIT},
    JOB_STATE_SUSPENDED: _BROKEN_OFF | {JOB_STATE_QUEUED, JOB_STATE_RUNNING, JOB_STATE_RETURNING, JOB_STATE_IN_TRANSIT},
    JOB_STATE_RETURNING: FINAL | {JOB_STATE_IN_TRANSIT},
    JOB_STATE_SUCCEEDED: frozenset(),
    JOB_STATE_FAILED: frozenset(),
    JOB_STATE_CANCELLED: frozenset(),
    JOB_STATE_EXPIRED: frozenset(),
}

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_INPUTS = 256


def label(state: State) -> str:
    """The state's word, without the wire's prefix."""
    return jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_")


def advanced(job: jobs_pb2.Job, state: State, reason: str, at_unix_ns: int) -> jobs_pb2.Job:
    """The job in its next state. Raises ValueError, with the job's history, for a step that the table does not have."""
    if state not in TRANSITIONS[job.state]:
        history = " → ".join(label(step.state) for step in job.history)
        raise ValueError(f"job {job.spec.id}: {label(state)} cannot follow {history}")
    after = noted(job, reason)
    after.state = state
    after.history.add(state=state, reason=reason, at_unix_ns=at_unix_ns)
    return after


def noted(job: jobs_pb2.Job, reason: str) -> jobs_pb2.Job:
    """The job in its state, for another reason."""
    after = jobs_pb2.Job()
    after.CopyFrom(job)
    after.reason = reason
    after.revision += 1
    return after


def accepted(spec: jobs_pb2.JobSpec, node: str, at_unix_ns: int) -> jobs_pb2.Job:
    """A new job, as the agent of `node` takes charge of it."""
    if not runs_here(spec, node):
        state, reason = JOB_STATE_WAITING_CONTACT, f"calling {spec.on_node}"
    elif away := away_inputs(spec, node):
        state, reason = JOB_STATE_WAITING_CONTACT, f"calling {away[0].at_node}"
    else:
        state, reason = JOB_STATE_QUEUED, "waiting for its turn"
    job = jobs_pb2.Job(spec=spec, state=state, reason=reason, attempt=1, revision=1)
    job.history.add(state=state, reason=reason, at_unix_ns=at_unix_ns)
    return job


def without_streams(job: jobs_pb2.Job) -> jobs_pb2.Job:
    """A copy of the job without stdout and stderr."""
    brief = jobs_pb2.Job()
    brief.CopyFrom(job)
    brief.ClearField("stdout")
    brief.ClearField("stderr")
    return brief


def runs_here(spec: jobs_pb2.JobSpec, node: str) -> bool:
    """Whether the agent of `node` runs the job itself."""
    return spec.on_node in ("", node)


def away_inputs(spec: jobs_pb2.JobSpec, node: str) -> list[jobs_pb2.JobInput]:
    """The inputs that the agent of `node`, which runs the job, must fetch from elsewhere."""
    return [each for each in spec.inputs if each.at_node not in ("", node)]


def program_object(spec: jobs_pb2.JobSpec) -> str:
    """The object that the job's program is, if it is one."""
    return spec.script_object or spec.wasm_object


def own_objects(spec: jobs_pb2.JobSpec, node: str) -> list[str]:
    """The objects of the spec that must be in the store of `node` when it is given the job."""
    program = [program_object(spec)] if program_object(spec) else []
    return program + [each.object for each in spec.inputs if each.at_node in ("", node)]


def check_spec(spec: jobs_pb2.JobSpec) -> None:
    """Whether any agent can take charge of it. Raises InvalidArgument."""
    if not _ID.fullmatch(spec.id) or spec.id in (".", ".."):
        raise InvalidArgument(f"job id {spec.id[:100]!r} is malformed: 1 to 64 of A-Z a-z 0-9 . _ -")
    program = spec.WhichOneof("program")
    if program is None:
        raise InvalidArgument(f"job {spec.id} has no program: give it a script or a command")
    if program == "script_object":
        digest_of(spec.script_object)
    elif not spec.command.argv or not spec.command.argv[0]:
        raise InvalidArgument(f"job {spec.id}: the command is empty")
    if len(spec.inputs) > _MAX_INPUTS:
        raise InvalidArgument(f"job {spec.id} has {len(spec.inputs)} inputs; at most {_MAX_INPUTS} are possible")
    for each in spec.inputs:
        digest_of(each.object)
    limits = spec.limits
    for name, value in (("wall_s", limits.wall_s), ("memory_bytes", limits.memory_bytes), ("cpu_s", limits.cpu_s)):
        if not 0 <= value < 2**62:
            raise InvalidArgument(f"job {spec.id}: limit {name} = {value} must be 0 (the default) or more")
    for name in spec.environment:
        if not _VARIABLE.fullmatch(name) or name.startswith("SKYRACK_"):
            raise InvalidArgument(f"job {spec.id}: {name[:100]!r} cannot be set: names are A-Za-z0-9_, not SKYRACK_…")
    if any("\0" in text for text in (*spec.command.argv, *spec.arguments, *spec.environment.values())):
        raise InvalidArgument(f"job {spec.id}: a NUL character in its arguments or environment")


def check_same(known: jobs_pb2.Job, spec: jobs_pb2.JobSpec) -> None:
    """Whether a second submission is the first one again. Raises AlreadyExists."""
    asked = jobs_pb2.JobSpec()
    asked.CopyFrom(spec)
    asked.return_to = known.spec.return_to  # of the way it came, not of what it is
    if known.spec != asked:
        raise AlreadyExists(f"job {spec.id} exists with another spec; choose another id")
