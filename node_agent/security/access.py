"""Who may call what: one table, and the guard that holds it at both planes.

The guard is also where what a service denies (PermissionDenied) is written down and told.

On the data plane the caller is whom the certificate of its connection names; on the control plane it is the emulator,
who alone can open that socket. What is not in the table is denied.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from enum import Enum
from typing import Any, Final, NoReturn, TypeAlias

import grpc

from node_agent.errors import InvalidArgument, PermissionDenied, Refusal
from node_agent.security.audit import DENIED, Audit
from node_agent.security.identity import ROLES, Subject
from node_agent.security.requests import Requests, reading
from protos.skyrack.v1 import jobs_pb2

_log = logging.getLogger(__name__)

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Request: TypeAlias = Any  # a message, or an iterator over them
FindJob: TypeAlias = Callable[[str], Awaitable[jobs_pb2.Job | None]]

EMULATOR: Final = Subject("emulator", "emulator", "")
UNKNOWN: Final = Subject("unknown", "unknown", "")


class Right(Enum):
    """What a role may do with a method."""

    NO = "no"
    YES = "yes"
    OWN = "own"  # of jobs that it handed in, that return to it or that run on it, and of such as nobody has


NO, YES, OWN = Right.NO, Right.YES, Right.OWN

# fmt: off
TABLE: Final[dict[str, dict[str, Right]]] = {
    method: dict(zip((*ROLES, EMULATOR.role), rights, strict=True))
    for method, *rights in (
        #                                 satellite  gateway  terminal  emulator
        ("skyrack.v1.Objects/Stat",            YES,     YES,     YES,     YES),
        ("skyrack.v1.Objects/Get",             YES,     YES,     YES,     YES),
        ("skyrack.v1.Objects/Put",             YES,     YES,     YES,     YES),
        ("skyrack.v1.Objects/List",            NO,      YES,     NO,      YES),
        ("skyrack.v1.Objects/SetTerms",        NO,      YES,     NO,      YES),
        ("skyrack.v1.Objects/Delete",          NO,      YES,     NO,      YES),
        ("skyrack.v1.Objects/Scrub",           NO,      YES,     NO,      YES),
        ("skyrack.v1.Jobs/Submit",             YES,     YES,     OWN,     YES),
        ("skyrack.v1.Jobs/Get",                YES,     YES,     OWN,     YES),
        ("skyrack.v1.Jobs/Watch",              YES,     YES,     OWN,     YES),
        ("skyrack.v1.Jobs/ReadLog",            YES,     YES,     OWN,     YES),
        ("skyrack.v1.Jobs/Cancel",             YES,     YES,     OWN,     YES),
        ("skyrack.v1.Jobs/Suspend",            YES,     YES,     OWN,     YES),
        ("skyrack.v1.Jobs/Resume",             YES,     YES,     OWN,     YES),
        ("skyrack.v1.Jobs/Return",             YES,     YES,     OWN,     YES),
        ("skyrack.v1.Jobs/Release",            YES,     YES,     OWN,     YES),
        ("skyrack.v1.Jobs/List",               NO,      YES,     NO,      YES),
        ("skyrack.v1.Node/GetInfo",            NO,      NO,      NO,      YES),
        ("skyrack.v1.Node/GetSigningRequest",  NO,      NO,      NO,      YES),
        ("skyrack.v1.Node/SetCertificate",     NO,      NO,      NO,      YES),
        ("skyrack.v1.Node/SetSky",             NO,      NO,      NO,      YES),
        ("skyrack.v1.Node/Audit",              NO,      NO,      NO,      YES),
        ("grpc.health.v1.Health/Check",        YES,     YES,     YES,     YES),
        ("grpc.health.v1.Health/Watch",        YES,     YES,     YES,     YES),
        ("grpc.health.v1.Health/List",         NO,      NO,      NO,      NO),  # gRPC's service lacks it
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                               YES,     YES,     YES,     YES),
    )
}
# fmt: on

NO_METHOD: Final = "no method"
"""What is written down of a call to a method that no service has."""

_MAX_SHOWN: Final = 100
_DELETE: Final = "skyrack.v1.Objects/Delete"

_caller: ContextVar[Subject] = ContextVar("caller")


def caller() -> Subject:
    """Who makes the call that is being answered."""
    return _caller.get()


class Guard(grpc.aio.ServerInterceptor):
    """Lets calls through that the table allows. Others are PERMISSION_DENIED, and an event of the audit."""

    def __init__(self, audit: Audit, find_job: FindJob, of_plane: Subject | None = None) -> None:
        """`of_plane`: who calls, whoever it is; None: whom the certificate names."""
        self._audit, self._find_job, self._of_plane = audit, find_job, of_plane
        self._guarded: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method, guarded; one that is not served here, too."""
        method = handler_call_details.method.removeprefix("/")
        guarded = self._guarded.get(method)
        if guarded is None:
            guarded = self._guard_of(method, await continuation(handler_call_details) or _UNSERVED)
            if method in TABLE:  # there is no end to what else may be asked for
                self._guarded[method] = guarded
        return guarded

    def _guard_of(self, method: str, handler: Handler) -> Handler:
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        # Every request is read here, as of a stream: of a single one gRPC would not let what is wrong with it be told.
        async def answer(_: AsyncIterator[Request], context: Context) -> object:
            request = await _read(context, is_stream=handler.request_streaming)
            who = await self._admit(method, request, context)
            try:
                return await behaviour(request, context)
            except PermissionDenied as denial:
                await self._deny(context, who, method, request, str(denial))
            except InvalidArgument as wrong:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(wrong))

        async def answers(_: AsyncIterator[Request], context: Context) -> None:
            request = await _read(context, is_stream=handler.request_streaming)
            who = await self._admit(method, request, context)
            try:
                await _write_all(behaviour(request, context), context)
            except PermissionDenied as denial:
                await self._deny(context, who, method, request, str(denial))
            except InvalidArgument as wrong:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(wrong))

        is_many = bool(handler.response_streaming)
        kind: Any = grpc.stream_stream_rpc_method_handler if is_many else grpc.stream_unary_rpc_method_handler
        made: Handler = kind(
            answers if is_many else answer,
            request_deserializer=reading(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return made

    async def _admit(self, method: str, request: Request, context: Context) -> Subject:
        """Know the caller, and let it pass or deny it."""
        who = self._of_plane or _named_by_certificate(context)
        _caller.set(who)
        right = TABLE.get(method, {}).get(who.role, NO)
        if right is NO:
            await self._deny(context, who, method, None, f"no {who.role} may call {_shown(method)}")
        if isinstance(request, jobs_pb2.SubmitRequest) and request.spec.drop and TABLE[_DELETE].get(who.role, NO) is NO:
            # This node would ask with its own right.
            await self._deny(context, who, method, request, f"no {who.role} may have objects removed")
        if right is OWN:
            job_id = _about(request)
            job = await self._find_job(job_id)
            if job is not None and who.name not in (job.submitted_by, job.spec.return_to, job.spec.on_node):
                await self._deny(context, who, method, request, f"job {job_id} is not {who.name}'s")
        return who

    async def _deny(self, context: Context, who: Subject, method: str, request: Request, reason: str) -> NoReturn:
        # All methods that there are not are one: who makes up names cannot push older events out.
        what, of = (method, _about(request)) if method in TABLE else (NO_METHOD, _shown(method))
        try:
            await self._audit.record(DENIED, who.name, what, of, reason)
        except Refusal as error:
            _log.error("%s was denied %s (%s), which could not be written down: %s", who.name, what, reason, error)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)


def _shown(method: str) -> str:
    """A method's name for people, of which one that nobody knows may be as long as it likes."""
    return method if method in TABLE else repr(method[:_MAX_SHOWN])


def _named_by_certificate(context: Context) -> Subject:
    uris = [uri.decode(errors="replace") for uri in context.auth_context().get("peer_uri", ())]
    return (Subject.of(uris[0]) if len(uris) == 1 else None) or UNKNOWN


async def _read(context: Context, *, is_stream: bool) -> Request:
    """What a service is called with: all requests of a stream as they come, or the only one."""
    requests = Requests(context)
    try:
        return requests if is_stream else await requests.first()
    except InvalidArgument as wrong:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(wrong))


async def _write_all(responses: Any, context: Context) -> None:  # noqa: ANN401 — an iterator, or a call that writes
    if inspect.isawaitable(responses):
        await responses
        return
    async with aclosing(responses):
        async for response in responses:
            await context.write(response)


def _about(request: Request) -> str:
    """The job or object that a request is about; empty where it names none, or is a stream."""
    match request:
        case jobs_pb2.SubmitRequest():
            return request.spec.id
        case jobs_pb2.ReturnJobRequest():
            return request.job.spec.id
        case _:
            return str(getattr(request, "id", "") or getattr(request, "object", ""))[:_MAX_SHOWN]


async def _unserved(_: Request, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this is not served on this plane of this node")


_UNSERVED: Final[Handler] = grpc.stream_stream_rpc_method_handler(_unserved)
