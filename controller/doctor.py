"""What a run needs of the machine: each thing looked at on its own, with what was found and what to do about a lack."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from controller.errors import MachineError
from controller.fabric.choose import DELAY_LINE_NEEDS, panel_capabilities
from controller.owner import is_machine_root, outer_uid, run_root, store_root
from controller.runtime.choose import choose_runtime
from controller.runtime.docker import DockerRuntime
from controller.runtime.engine import (
    MINIMUM_API_VERSION,
    Engine,
    EngineError,
    ask_engine,
    image_bytes,
)
from controller.runtime.image import node_image
from controller.runtime.namespace import NamespaceRuntime

MB = 1_000_000
# Idle nodes take 20 MB (71 measured, container shims included: they share the pages of the image); jobs take more.
MEMORY_A_CONTAINER_BYTES = 45 * MB
MEMORY_A_PROCESS_BYTES = 8 * MB  # without an engine they share the pages of what was imported, too (1,584 measured)
THREADS_A_NODE = 10
MEMORY_BESIDE_BYTES = 500 * MB  # the controller with its report, the delay line, the engine
DISK_A_NODE_BYTES = 30 * MB  # a scene in a store here and there
DISK_BESIDE_BYTES = 500 * MB
FILES_A_NODE = 4  # netlink, the agent's channel, probes
FILES_BESIDE = 256
NEIGHBOURS_A_NODE = 8
NEIGHBOURS_UNCOUNTED_SINCE = (5, 0)  # Linux commit 58956317c8de: permanent entries no longer count for gc_thresh3
INOTIFY_SPARE = 16
PROC = Path("/proc")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    remedy: str = ""  # empty when there is nothing to do
    required: bool = True  # False: a run does without, and `found` says how


def diagnose(n_node: int, runtime: str) -> list[Check]:
    """Everything that a run of n_node nodes needs of this machine. Changes nothing and raises nothing.

    `runtime`: docker or namespace, whose needs alone are required; auto: those of whichever a run would take.
    """
    if runtime == "auto":
        runtime = choose_runtime(runtime).name
    of_docker = _docker_checks(n_node)
    if runtime != DockerRuntime.name:
        of_docker = [replace(check, required=False) for check in of_docker]
    checks = [check_user(os.geteuid(), PROC, runtime), *of_docker]
    if runtime == NamespaceRuntime.name:
        checks += [check_limits(NamespaceRuntime(run_root())), check_processes(n_node, PROC)]
    memory = MEMORY_A_CONTAINER_BYTES if runtime == DockerRuntime.name else MEMORY_A_PROCESS_BYTES
    return [
        *checks,
        *check_panel(),
        check_memory(n_node, memory, PROC),
        check_neighbours(n_node, PROC, platform.release()),
        check_open_files(n_node, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        check_disk(n_node, _existing(store_root())),
    ]


def _docker_checks(n_node: int) -> list[Check]:
    engine = _engine()
    if isinstance(engine, Check):
        return [engine]
    inotify = check_inotify(engine.cgroup_version, n_node, PROC)
    return [check_engine(engine), check_image(), check_cgroup(engine), inotify]


def use_open_files() -> None:
    """Let this process, and what it starts, open as many files as the machine allows it to."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def require(checks: list[Check]) -> None:
    """Raise MachineError, with every remedy, unless all that is required is there."""
    lacks = [f"{check.name}: {check.found}; {check.remedy}" for check in checks if check.required and not check.ok]
    if lacks:
        raise MachineError("this machine lacks\n" + "\n".join(f"  {lack}" for lack in lacks))


def check_user(uid: int, proc: Path, runtime: str) -> Check:
    """Root, for namespaces and Docker; an ordinary user has namespaces where the kernel lets him."""
    if uid == 0:
        found = "root" if is_machine_root() else f"user {outer_uid()}, root of a user namespace"
        return Check("privilege", ok=True, found=found)
    refusal = _no_user_namespaces(proc)
    if runtime == DockerRuntime.name:
        return Check("privilege", ok=False, found=f"user {uid}", remedy="run as root, through sudo")
    if refusal is None:
        return Check("privilege", ok=True, found=f"user {uid}, who may have user namespaces")
    key, wanted = refusal
    name = key.removeprefix("sys/").replace("/", ".")
    return Check(
        "privilege",
        ok=False,
        found=f"user {uid}, user namespaces are off",
        remedy=f"sysctl -w {name}={wanted}, or sudo",
    )


def check_engine(engine: Engine) -> Check:
    """An engine that speaks the API that skyrack uses."""
    wanted = ".".join(map(str, MINIMUM_API_VERSION))
    return Check(
        "docker",
        ok=engine.api_is_enough,
        found=f"Docker Engine {engine.version}, API {engine.api_version}, {engine.storage_driver}",
        remedy="" if engine.api_is_enough else f"API {wanted} is needed: install Docker Engine 20.10 or newer",
    )


def check_image() -> Check:
    """The node image that belongs to this source."""
    try:
        image = node_image()
        size_bytes = image_bytes(image)
    except MachineError as error:
        return Check("node image", ok=False, found=str(error), remedy="run `make setup`")
    if size_bytes is None:
        return Check("node image", ok=False, found=f"{image} has not been built", remedy="run `make setup`")
    return Check("node image", ok=True, found=f"{image}, {size_bytes / MB:.0f} MB")


def check_cgroup(engine: Engine) -> Check:
    """Either version will do; which one is good to know."""
    return Check("cgroup", ok=True, found=f"version {engine.cgroup_version}, {engine.cgroup_driver}")


def check_limits(runtime: NamespaceRuntime) -> Check:
    """Whether limits of nodes without an engine hold."""
    found = runtime.shortcoming or runtime.engine_version()
    remedy = "mount a cgroup file system, or run as root" if runtime.shortcoming else ""
    return Check("limits of nodes", ok=not runtime.shortcoming, found=found, remedy=remedy, required=False)


def check_processes(n_node: int, proc: Path) -> Check:
    """Room for the threads of all agents, each of which has an id of its own."""
    limit = min(_number(proc / "sys/kernel/pid_max"), _number(proc / "sys/kernel/threads-max"))
    wanted = n_node * THREADS_A_NODE + FILES_BESIDE
    ok = limit >= wanted
    return Check(
        "threads",
        ok,
        found=f"{limit} on this machine, {wanted} wanted",
        remedy="" if ok else f"sysctl -w kernel.pid_max={max(4_194_304, wanted)} kernel.threads-max={2 * wanted}",
    )


def check_inotify(cgroup_version: str, n_node: int, proc: Path) -> Check:
    """With cgroup 2, containerd watches each container's memory events with an inotify instance of root's."""
    limit = _number(proc / "sys/fs/inotify/max_user_instances")
    wanted = n_node + INOTIFY_SPARE if cgroup_version == "2" else INOTIFY_SPARE
    return Check(
        "inotify instances",
        ok=limit >= wanted,
        found=f"{limit} a user, {wanted} wanted",
        remedy="" if limit >= wanted else f"sysctl -w fs.inotify.max_user_instances={2 * wanted}",
    )


def check_panel() -> list[Check]:
    """What the kernel has of what the patch panel is made of. Where netem cannot be had, the delay line steps in."""
    try:
        capabilities = panel_capabilities()
    except MachineError as error:
        return [Check("network namespaces", ok=False, found=str(error), remedy="run as root, through sudo")]
    checks = []
    for name, ok, detail in capabilities:
        required = name in DELAY_LINE_NEEDS
        remedy = f"load the kernel's module (modprobe {name}), or use a kernel that has it"
        found = detail if ok or required else f"{detail}; links are shaped by the delay line in its place"
        checks.append(Check(name, ok, found, "" if ok else remedy, required))
    return checks


def check_memory(n_node: int, a_node_bytes: int, proc: Path) -> Check:
    """Room for the nodes and for what runs beside them."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text(), re.MULTILINE)
    available_bytes = int(match[1]) * 1024 if match else 0
    wanted_bytes = n_node * a_node_bytes + MEMORY_BESIDE_BYTES
    fits = max(0, (available_bytes - MEMORY_BESIDE_BYTES) // a_node_bytes)
    ok = available_bytes >= wanted_bytes
    return Check(
        "memory",
        ok,
        found=f"{available_bytes / MB:,.0f} MB available, {wanted_bytes / MB:,.0f} MB wanted for {n_node} nodes",
        remedy="" if ok else f"free some, or run fewer nodes: {fits} would fit",
    )


def check_neighbours(n_node: int, proc: Path, release: str) -> Check:
    """The neighbour table, which all namespaces share; permanent entries do not count on today's kernels."""
    kernel = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if kernel >= NEIGHBOURS_UNCOUNTED_SINCE:
        return Check("neighbour table", ok=True, found="permanent entries do not count")
    limit = _number(proc / "sys/net/ipv4/neigh/default/gc_thresh3")
    wanted = n_node * NEIGHBOURS_A_NODE
    ok = limit >= wanted
    return Check(
        "neighbour table",
        ok,
        found=f"gc_thresh3 {limit}, {wanted} wanted",
        remedy="" if ok else f"sysctl -w net.ipv4.neigh.default.gc_thresh3={2 * wanted}",
    )


def check_open_files(n_node: int, hard_limit: int) -> Check:
    """Sockets and namespaces of every node in one process, held against the hard limit: see use_open_files."""
    wanted = FILES_BESIDE + n_node * FILES_A_NODE
    ok = hard_limit == resource.RLIM_INFINITY or hard_limit >= wanted
    found = "no limit" if hard_limit == resource.RLIM_INFINITY else f"{hard_limit} a process"
    return Check("open files", ok, f"{found}, {wanted} wanted", "" if ok else f"ulimit -Hn {wanted}, as root")


def check_disk(n_node: int, folder: Path) -> Check:
    """Room for the nodes' stores, below /var/lib/skyrack."""
    free_bytes = shutil.disk_usage(folder).free
    wanted_bytes = n_node * DISK_A_NODE_BYTES + DISK_BESIDE_BYTES
    ok = free_bytes >= wanted_bytes
    return Check(
        "disk",
        ok,
        found=f"{free_bytes / MB:,.0f} MB free in {folder}, {wanted_bytes / MB:,.0f} MB wanted for {n_node} nodes",
        remedy="" if ok else f"free some in {folder}",
    )


def _engine() -> Engine | Check:
    try:
        return ask_engine()
    except EngineError as error:
        return Check("docker", ok=False, found=error.found, remedy=error.remedy)


def _no_user_namespaces(proc: Path) -> tuple[str, int] | None:
    """The switch that keeps an ordinary user from them, and what it should be (Debian's and Ubuntu's own included)."""
    switches: tuple[tuple[str, Callable[[int], bool], int], ...] = (
        ("sys/user/max_user_namespaces", lambda value: value > 0, 10_000),
        ("sys/kernel/unprivileged_userns_clone", lambda value: value == 1, 1),
        ("sys/kernel/apparmor_restrict_unprivileged_userns", lambda value: value == 0, 0),
    )
    refusing = (
        (key, wanted) for key, allows, wanted in switches if (proc / key).exists() and not allows(_number(proc / key))
    )
    return next(refusing, None)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _number(path: Path) -> int:
    return int(path.read_text())
