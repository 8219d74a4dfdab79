"""Life of a job: which state may follow which, and why. Decides; does nothing."""

from __future__ import annotations

import random
import re
from typing import Final, TypeAlias

from node_agent.errors import AlreadyExists, InvalidArgument, PermissionDenied
from node_agent.objects.catalog import JOB_ID
from node_agent.objects.names import digest_of
from node_agent.objects.terms import Terms
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
# a node goes back to IN_TRANSIT when the node has lost it (its store was emptied); RUNNING goes back to QUEUED when
# another attempt is to follow, and from QUEUED to it when the process was stopped, and killed while it waited to go on.
TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    JOB_STATE_WAITING_CONTACT: _BROKEN_OFF | {JOB_STATE_IN_TRANSIT, JOB_STATE_QUEUED, JOB_STATE_SUSPENDED},
    JOB_STATE_IN_TRANSIT: _BROKEN_OFF | AT_NODE | {JOB_STATE_WAITING_CONTACT},
    JOB_STATE_QUEUED: FINAL | AT_NODE | {JOB_STATE_IN_TRANSIT},
    JOB_STATE_RUNNING: FINAL | {JOB_STATE_QUEUED, JOB_STATE_SUSPENDED, JOB_STATE_RETURNING, JOB_STATE_IN_TRANSIT},
    JOB_STATE_SUSPENDED: FINAL | {JOB_STATE_QUEUED, JOB_STATE_RUNNING, JOB_STATE_RETURNING, JOB_STATE_IN_TRANSIT},
    JOB_STATE_RETURNING: FINAL | {JOB_STATE_IN_TRANSIT},
    JOB_STATE_SUCCEEDED: frozenset(),
    JOB_STATE_FAILED: frozenset(),
    JOB_STATE_CANCELLED: frozenset(),
    JOB_STATE_EXPIRED: frozenset(),
}

_OF_THE_END: Final = ("exit_status", "signal", "stdout", "stderr", "usage", "outputs")
_MAX_HISTORY: Final = 1000
"""A job that goes through blackouts for days still fits a message: its oldest states but the first are dropped."""

_STARTS_UNLESS_TOLD: Final = 10
_FIRST_BACKOFF_S: Final = 0.5
_MAX_BACKOFF_S: Final = 30.0

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JURISDICTION = re.compile(r"[A-Z]{2}")
_MAX_INPUTS = 256
MAX_OUTPUTS: Final = 4096
_MAX_SPEC_BYTES = 256 * 1024
_MAX_RESULT_BYTES = 7 * 2**19
"""Of a job that has ended, as another agent brings it: with what is added here, it still has to fit a message."""


def label(state: State) -> str:
    """The state's word, without the wire's prefix; of one that this agent does not know, its number."""
    known = jobs_pb2.JobState.DESCRIPTOR.values_by_number.get(state)
    return known.name.removeprefix("JOB_STATE_") if known else f"in a state unknown here, {state}"


def advanced(job: jobs_pb2.Job, state: State, reason: str, at_unix_ns: int) -> jobs_pb2.Job:
    """The job in its next state. Raises ValueError, with the job's history, for a step that the table does not have."""
    if state not in TRANSITIONS[job.state]:
        history = " → ".join(label(step.state) for step in job.history)
        raise ValueError(f"job {job.spec.id}: {label(state)} cannot follow {history}")
    after = noted(job, reason)
    after.state = state
    if len(after.history) == _MAX_HISTORY:
        del after.history[1]
    after.history.add(state=state, reason=reason, at_unix_ns=at_unix_ns)
    if state == JOB_STATE_RUNNING:
        for name in _OF_THE_END:
            after.ClearField(name)
    return after


def noted(job: jobs_pb2.Job, reason: str) -> jobs_pb2.Job:
    """The job in its state, for another reason."""
    after = jobs_pb2.Job()
    after.CopyFrom(job)
    after.reason = reason
    after.revision += 1
    return after


def accepted(spec: jobs_pb2.JobSpec, node: str, at_unix_ns: int, now_emu_ns: int | None) -> jobs_pb2.Job:
    """A new job, as the agent of `node` takes charge of it; EXPIRED at once if its deadline has passed."""
    away = away_inputs(spec, node)
    if spec.deadline_emu_ns and now_emu_ns is not None and now_emu_ns >= spec.deadline_emu_ns:
        state, reason = JOB_STATE_EXPIRED, "its deadline had passed when it was handed in"
    elif not runs_here(spec, node):
        state, reason = JOB_STATE_WAITING_CONTACT, f"calling {spec.on_node}"
    elif away:
        state, reason = JOB_STATE_WAITING_CONTACT, f"calling {away[0].at_node}"
    else:
        state, reason = JOB_STATE_QUEUED, "waiting for its turn"
    job = jobs_pb2.Job(spec=spec, state=state, reason=reason, attempt=1, revision=1)
    job.checkpoint_object = spec.checkpoint_object
    job.history.add(state=state, reason=reason, at_unix_ns=at_unix_ns)
    return job


def max_starts(spec: jobs_pb2.JobSpec) -> int:
    """How many times its program may be started."""
    return spec.max_attempts or _STARTS_UNLESS_TOLD


def tries_again(job: jobs_pb2.Job, interrupted: bool) -> bool:
    """Whether another attempt follows one that failed, or under which the agent or the node ended."""
    return job.attempt < max_starts(job.spec) and (interrupted or job.spec.max_attempts > 1)


def backoff_s(job: jobs_pb2.Job) -> float:
    """How long the job waits before the attempt that it is at, in seconds: longer each time; the same for the same job.

    Half of it is drawn, so that what failed together is not tried again together.
    """
    if job.attempt <= 1:
        return 0.0
    longest_s = min(_FIRST_BACKOFF_S * 2.0 ** min(job.attempt - 2, 30), _MAX_BACKOFF_S)
    return longest_s * random.Random(f"{job.spec.id} {job.attempt}").uniform(0.5, 1.0)  # noqa: S311 — jitter, no secret


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
    """The inputs that the agent of `node` must fetch from elsewhere: it runs the job, and they are not here."""
    return [each for each in spec.inputs if runs_here(spec, node) and each.at_node not in ("", node)]


def own_inputs(spec: jobs_pb2.JobSpec, node: str) -> list[str]:
    """The inputs that are in the store of `node` when it is given the job."""
    return [each.object for each in spec.inputs if each.at_node in ("", node)]


def program_objects(spec: jobs_pb2.JobSpec) -> list[str]:
    """What its program is, and goes on from: objects in the store of whoever is given the job."""
    return [name for name in (spec.script_object, spec.wasm_object, spec.checkpoint_object) if name]


def check_spec(spec: jobs_pb2.JobSpec) -> None:
    """Whether an agent can take charge of it. Raises InvalidArgument."""
    if not JOB_ID.fullmatch(spec.id) or spec.id in (".", ".."):
        raise InvalidArgument(f"job id {spec.id[:100]!r} is malformed: 1 to 64 of A-Z a-z 0-9 . _ -")
    if spec.ByteSize() > _MAX_SPEC_BYTES:
        raise InvalidArgument(f"job {spec.id}: its spec has {spec.ByteSize()} bytes; at most {_MAX_SPEC_BYTES} may be")
    _check_program(spec)
    if len(spec.inputs) > _MAX_INPUTS:
        raise InvalidArgument(f"job {spec.id} has {len(spec.inputs)} inputs; at most {_MAX_INPUTS} are possible")
    for each in spec.inputs:
        digest_of(each.object)
    if spec.checkpoint_object:
        digest_of(spec.checkpoint_object)
    numbers = {f"limit {known.name}": getattr(spec.limits, known.name) for known in spec.limits.DESCRIPTOR.fields}
    numbers |= {"deadline_emu_ns": spec.deadline_emu_ns, "max_attempts": spec.max_attempts}
    for name, value in numbers.items():
        if not 0 <= value < 2**62:
            raise InvalidArgument(f"job {spec.id}: {name} = {value} must be 0 (the default) or more")
    for variable in spec.environment:
        if not _VARIABLE.fullmatch(variable) or variable.startswith("SKYRACK_"):
            raise InvalidArgument(
                f"job {spec.id}: {variable[:100]!r} cannot be set: names are A-Za-z0-9_, not SKYRACK_…"
            )
    if any("\0" in text for text in (*spec.command.argv, *spec.arguments, *spec.environment.values())):
        raise InvalidArgument(f"job {spec.id}: a NUL character in its arguments or environment")
    for code in spec.jurisdictions:
        if not _JURISDICTION.fullmatch(code):
            raise InvalidArgument(f"job {spec.id}: jurisdiction {code[:100]!r} is no code of two letters A-Z")


def check_result(job: jobs_pb2.Job) -> None:
    """Whether an agent can take charge of a job's result. Raises InvalidArgument."""
    check_spec(job.spec)
    if job.state not in FINAL or job.let_go:
        raise InvalidArgument(f"job {job.spec.id} is {label(job.state)}: only what has ended has a result")
    if job.ByteSize() > _MAX_RESULT_BYTES or len(job.outputs) > MAX_OUTPUTS:
        raise InvalidArgument(
            f"job {job.spec.id} has {job.ByteSize()} bytes and {len(job.outputs)} outputs; at most {_MAX_RESULT_BYTES} "
            f"and {MAX_OUTPUTS} are taken back"
        )


def _check_program(spec: jobs_pb2.JobSpec) -> None:
    match spec.WhichOneof("program"):
        case "script_object":
            digest_of(spec.script_object)
        case "wasm_object":
            digest_of(spec.wasm_object)
        case "command":
            if not spec.command.argv or not spec.command.argv[0]:
                raise InvalidArgument(f"job {spec.id}: the command is empty")
        case "keep":
            if not spec.inputs:
                raise InvalidArgument(f"job {spec.id} is to keep objects, and names none as its inputs")
            Terms.of(spec.keep)
        case "drop":
            if not spec.drop or spec.on_node or not spec.inputs or not all(each.at_node for each in spec.inputs):
                raise InvalidArgument(f"job {spec.id} drops objects: its inputs must name them, each with its node")
        case _:
            raise InvalidArgument(
                f"job {spec.id} has no program: give it a script, a command, a module or terms to keep"
            )


def check_jurisdiction(spec: jobs_pb2.JobSpec, node: str, jurisdiction: str) -> None:
    """Whether a node that lies there may run it; "" is outside of every list. Raises PermissionDenied."""
    if runs_here(spec, node) and spec.jurisdictions and jurisdiction not in spec.jurisdictions:
        allowed = ", ".join(spec.jurisdictions)
        where = f"lies in {jurisdiction}" if jurisdiction else "has no jurisdiction"
        raise PermissionDenied(f"job {spec.id} may be processed in {allowed} alone, and {node} {where}")


def check_same(known: jobs_pb2.Job, spec: jobs_pb2.JobSpec) -> None:
    """Whether a second submission is the first one again. Raises AlreadyExists."""
    if known.spec != spec:
        raise AlreadyExists(f"job {spec.id} exists with another spec; choose another id")


def check_same_order(known: jobs_pb2.Job, spec: jobs_pb2.JobSpec) -> None:
    """Whether a job as another node has it is the one that is known here. Raises AlreadyExists.

    It is told along the way where its inputs lie, and where its result goes.
    """
    here, there = jobs_pb2.JobSpec(), jobs_pb2.JobSpec()
    for copy, original in ((here, known.spec), (there, spec)):
        copy.CopyFrom(original)
        copy.return_to = ""
        for each in copy.inputs:
            each.at_node = ""
    if here != there:
        raise AlreadyExists(f"job {spec.id} is known here with another spec")
