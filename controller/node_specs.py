"""What a runtime needs to know of a run's nodes, and of what they run of the user's."""

from __future__ import annotations

from controller.runs import RunPlace
from controller.runtime.contract import NodeSpec, ProgramSpec
from controller.scenario import Scenario
from controller.scenario.hosting import Hosting
from controller.timeline import Timeline


def node_address(index: int) -> str:
    """The IPv4 address of a node in the emulated network, 10.64.0.1 onwards: room for four million nodes."""
    host = index + 1
    return f"10.{64 + (host >> 16)}.{host >> 8 & 255}.{host & 255}"


def node_specs(scenario: Scenario, timeline: Timeline, place: RunPlace) -> list[NodeSpec]:
    """Every node of a run, in the timeline's order."""
    return [_node_spec(scenario, timeline, place, index) for index in range(len(timeline.nodes))]


def images_of(scenario: Scenario) -> dict[str, ProgramSpec]:
    """Every image that nodes host, by where the user named it."""
    named = {f"{scenario.label}: {key}": _program(hosting, scenario) for key, hosting in scenario.images.items()}
    return {where: program for where, program in named.items() if program is not None}


def _node_spec(scenario: Scenario, timeline: Timeline, place: RunPlace, index: int) -> NodeSpec:
    node = timeline.nodes[index]
    resources = scenario.resources_of(node.name)
    return NodeSpec(
        run_id=place.run_id,
        index=index,
        name=node.name,
        role=node.role,
        address=node_address(index),
        jurisdiction=scenario.jurisdictions.get(node.name, ""),
        control_dir=place.control_dir(index),
        store_dir=place.store_dir(index),
        hosts_file=place.hosts_file,
        memory_bytes=resources.memory_bytes,
        cpu_limit=resources.cpu_limit,
        pids_limit=resources.pids_limit,
        store_bytes=resources.store_bytes,
        encrypt_at_rest=resources.encrypt_at_rest,
        job_slots=resources.job_slots,
        program=_program(scenario.hostings.get(node.name), scenario),
    )


def _program(hosting: Hosting | None, scenario: Scenario) -> ProgramSpec | None:
    """What a node hosts, with the half of the node that is for it."""
    if hosting is None or hosting.image is None:
        return None
    half = scenario.resources.half
    return ProgramSpec(
        image=hosting.image,
        command=hosting.command,
        environment=tuple(hosting.environment.items()),
        memory_bytes=half.memory_bytes,
        cpu_limit=half.cpu_limit,
        pids_limit=half.pids_limit,
    )
