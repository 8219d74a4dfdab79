"""What a run that is up lets its owner change and measure: the sky's clock, links, faults, probes, ports."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NoReturn, TypeVar

import grpc
import numpy as np
from pydantic import ValidationError

from controller.emulation import Emulation
from controller.errors import InputError, SkyrackError
from controller.fabric.plan import DARK, ShapingPlan
from controller.faults import LinkOverride
from controller.overlay import Overlay
from controller.scenario.checks import nearest
from controller.scenario.fault_model import Fault
from controller.scenario.messages import structural_problems
from controller.timeline import IntArray, LinkKind, Sky
from protos.skyrack.v1 import controller_pb2, controller_pb2_grpc

MAX_PROBES = 1_000
MAX_DETAILS_BYTES = 7_000  # with all else that a status says, of the 8 KiB that gRPC's clients take for sure
T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class LiveService(controller_pb2_grpc.ControllerServicer):
    """Answers for one emulation. Input errors become INVALID_ARGUMENT, all others of skyrack's FAILED_PRECONDITION."""

    def __init__(self, emulation: Emulation) -> None:
        self._emulation, self._overlay = emulation, Overlay(emulation)

    async def Pause(  # noqa: N802 - the names are the wire's
        self, request: controller_pb2.PauseRequest, context: Context
    ) -> controller_pb2.SkyClock:
        """Let the sky stand."""
        return await self._turned(context, self._emulation.pause)

    async def Resume(  # noqa: N802
        self, request: controller_pb2.ResumeRequest, context: Context
    ) -> controller_pb2.SkyClock:
        """Let it go on."""
        return await self._turned(context, self._emulation.resume)

    async def Step(  # noqa: N802
        self, request: controller_pb2.StepRequest, context: Context
    ) -> controller_pb2.SkyClock:
        """Go some steps on."""
        return await self._turned(context, lambda: self._emulation.step_on(request.steps))

    async def Seek(  # noqa: N802
        self, request: controller_pb2.SeekRequest, context: Context
    ) -> controller_pb2.SkyClock:
        """Go to a moment."""
        return await self._turned(context, lambda: self._emulation.seek(request.t_s))

    async def ShowLink(  # noqa: N802
        self, request: controller_pb2.LinkRequest, context: Context
    ) -> controller_pb2.LinkView:
        """A link as geometry has it, as it is set, commanded, and in force."""
        async with _refusing(context):
            return link_view(self._emulation, request.a, request.b)

    async def SetLink(  # noqa: N802
        self, request: controller_pb2.LinkOverride, context: Context
    ) -> controller_pb2.LinkView:
        """Have a link so from now on."""
        async with _refusing(context):
            asked = _given(request, "delay_us", "rate_bps", "loss_ratio", "up")
            self._overlay.set_link(request.a, request.b, LinkOverride(**asked))
            return link_view(self._emulation, request.a, request.b)

    async def ClearLink(  # noqa: N802
        self, request: controller_pb2.LinkRequest, context: Context
    ) -> controller_pb2.ClearedLink:
        """Leave a link to geometry and faults again."""
        async with _refusing(context):
            link_view(self._emulation, request.a, request.b)  # refuses what is no link
            was_set = self._overlay.clear_link(request.a, request.b)
            return controller_pb2.ClearedLink(was_set=was_set, link=link_view(self._emulation, request.a, request.b))

    async def InjectFault(  # noqa: N802
        self, request: controller_pb2.InjectFaultRequest, context: Context
    ) -> controller_pb2.InjectedFault:
        """A fault from now on."""
        async with _refusing(context):
            at_s = self._emulation.t_s
            return controller_pb2.InjectedFault(id=self._overlay.inject(fault_of(request, at_s)), at_s=at_s)

    async def ClearFault(  # noqa: N802
        self, request: controller_pb2.ClearFaultRequest, context: Context
    ) -> controller_pb2.ClearedFaults:
        """End faults."""
        async with _refusing(context):
            return controller_pb2.ClearedFaults(cleared=self._overlay.clear(request.which))

    async def ListFaults(  # noqa: N802
        self, request: controller_pb2.ListFaultsRequest, context: Context
    ) -> controller_pb2.ListFaultsResponse:
        """Faults that are in force or to come."""
        listed = self._emulation.schedule.faults.listed(self._emulation.t_s)
        return controller_pb2.ListFaultsResponse(
            faults=[
                controller_pb2.FaultView(
                    id=fault.id,
                    kind=fault.kind,
                    target=fault.target,
                    mode=fault.mode,
                    at_s=fault.at_s,
                    until_s=None if math.isinf(fault.until_s) else fault.until_s,
                    active=fault.active,
                    origin=fault.origin,
                )
                for fault in listed
            ]
        )

    async def Probe(  # noqa: N802
        self, request: controller_pb2.ProbeRequest, context: Context
    ) -> AsyncIterator[controller_pb2.ProbeStatus]:
        """Measure round trips now."""
        async with _refusing(context):
            a, b = (_known(self._emulation, name) for name in (request.a, request.b))
            if a == b or not 1 <= request.count <= MAX_PROBES:
                raise InputError(f"a probe is between two nodes, and counts 1 to {MAX_PROBES}")
            probing = self._emulation.probing
            if probing is None:
                raise SkyrackError("the run is still starting: its nodes cannot be probed yet")
            self._emulation.route_to([a, b])
            async with contextlib.aclosing(probing.measure(a, b, request.count)) as answers:
                async for probed in answers:
                    yield controller_pb2.ProbeStatus(
                        a=a,
                        b=b,
                        commanded_rtt_us=-1 if probed.commanded_rtt_us is None else probed.commanded_rtt_us,
                        measured_rtt_us=-1 if probed.measured_rtt_us is None else round(probed.measured_rtt_us),
                    )

    async def FindPorts(  # noqa: N802
        self, request: controller_pb2.FindPortsRequest, context: Context
    ) -> controller_pb2.FindPortsResponse:
        """The panel's ports of a node, or of a link."""
        async with _refusing(context):
            return controller_pb2.FindPortsResponse(ports=panel_ports(self._emulation, request.target))

    async def _turned(self, context: Context, turn: Callable[[], None]) -> controller_pb2.SkyClock:
        """The sky's clock after it was turned."""
        emulation = self._emulation
        async with _refusing(context):
            turn()
        t_s = emulation.t_s
        return controller_pb2.SkyClock(
            t_s=t_s,
            utc=utc_text_at(emulation, t_s),
            step=emulation.state.step,
            last_step=emulation.schedule.n_step - 1,
            paused=emulation.paused,
        )


async def answered(context: Context, call: Callable[[], Awaitable[T]]) -> T:
    """The call's answer, or its error told to the caller."""
    async with _refusing(context):
        return await call()


async def refuse(context: Context, error: SkyrackError) -> NoReturn:
    """End the call with an error of skyrack's own."""
    code = grpc.StatusCode.INVALID_ARGUMENT if isinstance(error, InputError) else grpc.StatusCode.FAILED_PRECONDITION
    await context.abort(code, fitting(str(error)))
    raise error  # never reached: abort ends the call


def fitting(words: str) -> str:
    """As much of a text as gRPC lets through as a status's details, where all but ASCII takes three bytes a byte."""
    size_bytes = 0
    for at, character in enumerate(words):
        size_bytes += sum(1 if 0x20 <= byte < 0x7F and byte != 0x25 else 3 for byte in character.encode())
        if size_bytes > MAX_DETAILS_BYTES:
            return f"{words[:at]} …"
    return words


@contextlib.asynccontextmanager
async def _refusing(context: Context) -> AsyncIterator[None]:
    """Tell the caller an error of skyrack's own."""
    try:
        yield
    except SkyrackError as error:
        await refuse(context, error)


def utc_text_at(emulation: Emulation, t_s: float) -> str:
    """A moment of the sky's time as ISO 8601."""
    return (emulation.timeline.epoch_utc + datetime.timedelta(seconds=t_s)).isoformat().replace("+00:00", "Z")


def fault_of(request: controller_pb2.InjectFaultRequest, at_s: float) -> Fault:
    """The fault that is asked for. Raises InputError, which names key, value, and what is allowed."""
    asked: dict[str, object] = {"kind": request.kind, "at_s": at_s}
    asked |= _given(request, "mode", "duration_s", "rate_per_hour", "extra_delay_s", "rate_ratio", "loss_ratio")
    if request.target:
        asked["target"] = request.target
    if request.HasField("region"):
        asked["region"] = {key: getattr(request.region, key) for key in ("latitude_deg", "longitude_deg", "radius_m")}
    try:
        return Fault.model_validate(asked)
    except ValidationError as error:
        raise InputError("\n".join(f"fault: {line}" for line in structural_problems(error, Fault))) from error


def override_messages(emulation: Emulation) -> Iterator[controller_pb2.LinkOverride]:
    """Every link that is set."""
    for (a, b), override in emulation.schedule.faults.overrides().items():
        yield _override_message(a, b, override)


def link_view(emulation: Emulation, name_a: str, name_b: str) -> controller_pb2.LinkView:
    """The link between two nodes now. Raises InputError where none ever joins them."""
    a, b = sorted((_known(emulation, name_a), _known(emulation, name_b)))
    state, links = emulation.state, emulation.timeline.links
    geometry = emulation.timeline.sky(state.step)
    rows = _rows(emulation, a, b, state.sky)
    override = emulation.schedule.faults.overrides().get((a, b))
    view = controller_pb2.LinkView(
        a=a,
        b=b,
        kind=LinkKind(int(links.kind[_links_between(emulation, a, b)[0]])).name.lower(),
        t_s=emulation.t_s,
        geometry=_link_state(geometry, rows[:1]),
        override=None if override is None else _override_message(a, b, override),
        commanded=_link_state(state.sky, rows[state.usable[rows]][:1]),
    )
    in_force, start = emulation.read_back(), emulation.schedule.port_start
    for row in rows[:1]:
        link = int(state.sky.link[row])
        port_a = int(start[links.a[link]] + links.port_a[link])
        port_b = int(start[links.b[link]] + links.port_b[link])
        if emulation.timeline.nodes[int(links.a[link])].name != a:
            port_a, port_b = port_b, port_a
        view.read_back_a_to_b.CopyFrom(_direction(in_force, port_a, port_b))
        view.read_back_b_to_a.CopyFrom(_direction(in_force, port_b, port_a))
    return view


def panel_ports(emulation: Emulation, target: str) -> list[controller_pb2.PanelPort]:
    """The ports of a node, or those between which geometry has the link "a~b" now. Raises InputError."""
    timeline, start = emulation.timeline, emulation.schedule.port_start
    if "~" in target:
        a, _, b = target.partition("~")
        rows = _rows(emulation, _known(emulation, a), _known(emulation, b), emulation.state.sky)
        if not len(rows):
            raise InputError(
                f"geometry has no link {target} at t = {emulation.t_s:.1f} s (`skyrack link show {a} {b}`)"
            )
        links, up = timeline.links, emulation.state.sky.link[rows]
        ends = [*zip(links.a[up], links.port_a[up], strict=True), *zip(links.b[up], links.port_b[up], strict=True)]
    else:
        node = emulation.index_of[_known(emulation, target)]
        ends = [(node, port) for port in range(len(timeline.nodes[node].ports))]
    return [
        controller_pb2.PanelPort(
            number=int(start[node] + port),
            node=timeline.nodes[int(node)].name,
            name=timeline.nodes[int(node)].ports[int(port)],
        )
        for node, port in ends
    ]


def _known(emulation: Emulation, name: str) -> str:
    """The name of a node. Raises InputError for one that there is not."""
    if name not in emulation.index_of:
        raise InputError(f"no node is called {name!r}{nearest(name, list(emulation.index_of))}")
    return name


def _links_between(emulation: Emulation, a: str, b: str) -> IntArray:
    """The links that ever join two nodes. Shape: (n,). Raises InputError where there is none."""
    links, (i, j) = emulation.timeline.links, (emulation.index_of[name] for name in (a, b))
    found = np.flatnonzero(((links.a == i) & (links.b == j)) | ((links.a == j) & (links.b == i)))
    if not len(found):
        raise InputError(f"no link joins {a} and {b} at any time of the run")
    return found


def _rows(emulation: Emulation, a: str, b: str, sky: Sky) -> IntArray:
    """The rows of a sky which join two nodes. Shape: (n,)."""
    return np.flatnonzero(np.isin(sky.link, _links_between(emulation, a, b)))


def _link_state(sky: Sky, rows: IntArray) -> controller_pb2.LinkState:
    """The link of the first of some rows of a sky; down where there are none."""
    if not len(rows):
        return controller_pb2.LinkState()
    row = int(rows[0])
    return controller_pb2.LinkState(
        up=True,
        delay_us=int(sky.delay_us[row]),
        rate_bps=int(sky.rate_bps[row]),
        loss_ratio=float(sky.loss_ratio[row]),
    )


def _direction(in_force: ShapingPlan, port: int, peer: int) -> controller_pb2.LinkState:
    """What is in force from a port to its peer."""
    if in_force.peer[port] == DARK or in_force.peer[port] != peer:
        return controller_pb2.LinkState()
    return controller_pb2.LinkState(
        up=True,
        delay_us=int(in_force.delay_us[port]),
        rate_bps=int(in_force.rate_bps[port]),
        loss_ratio=float(in_force.loss_ratio[port]),
    )


def _override_message(a: str, b: str, override: LinkOverride) -> controller_pb2.LinkOverride:
    return controller_pb2.LinkOverride(
        a=a,
        b=b,
        delay_us=override.delay_us,
        rate_bps=override.rate_bps,
        loss_ratio=override.loss_ratio,
        up=override.up,
    )


def _given(request: Any, *keys: str) -> dict[str, Any]:  # noqa: ANN401 - any message
    """Those of the optional fields that a message has."""
    return {key: getattr(request, key) for key in keys if request.HasField(key)}
