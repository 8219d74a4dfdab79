"""The agent's command line and its life as a process."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import ipaddress
import logging
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from node_agent import memory
from node_agent.delivery.cargo import Cargo
from node_agent.delivery.contact import Contacts
from node_agent.delivery.courier import Courier
from node_agent.delivery.healing import Healer
from node_agent.delivery.peer import Resolver
from node_agent.delivery.way_back import WayBack
from node_agent.errors import Refusal
from node_agent.jobs.engine import Bounds, Engine
from node_agent.jobs.executor import Executor
from node_agent.jobs.ledger import Ledger
from node_agent.jobs.logs import JobLogs
from node_agent.journal import Journal, JournalError
from node_agent.objects.scrub import EVERY_S, Scrubber
from node_agent.objects.sealing import Keys
from node_agent.objects.store import ObjectStore
from node_agent.objects.transfer import ChecksumError, check_checksums
from node_agent.processes import init
from node_agent.processes.first_process import FirstProcess
from node_agent.processes.users import JOB_USERS, Users
from node_agent.security import identity, wire
from node_agent.security.audit import Audit
from node_agent.security.identity import Credentials, Identity
from node_agent.server import PlaneError, Planes, wait_for_address
from node_agent.sky.endpoint import Endpoint
from node_agent.sky.sky import Sky

_log = logging.getLogger(__name__)

JOURNAL = "journal.db"
IDENTITY = "identity"
_DEFAULT_STORE_BYTES = 2 * 1024**3
_FIRST_JOB_USER = 10100


@dataclass(frozen=True)
class Options:
    """What the agent was told to be."""

    identity: Identity
    port: int
    control_socket: Path
    endpoint: tuple[str, int] | None  # where programs in the node are told of the sky, if anywhere
    store_dir: Path
    store_bytes: int
    encrypt_at_rest: bool
    scrub_every_s: float
    bounds: Bounds
    peers: dict[str, str]
    users: Users | None  # none: all that lives in the node is whoever starts it


def parse_options(argv: Sequence[str]) -> Options:
    """The command line. Ends the process with status 2 and a message if it is wrong."""
    parser = argparse.ArgumentParser(prog="skyrack-agent", description="The program in every node of a skyrack run.")
    parser.add_argument("--name", required=True, help="the node's name")
    parser.add_argument("--role", required=True, choices=identity.ROLES)
    parser.add_argument("--address", required=True, type=_ipv4, help="the node's IPv4 address in the emulated network")
    parser.add_argument("--port", type=int, default=wire.DATA_PORT, help="TCP port of every node's data plane")
    parser.add_argument("--control-socket", required=True, type=Path, help="Unix socket of the control plane")
    parser.add_argument(
        "--endpoint",
        type=_endpoint,
        metavar="IPV4:PORT",
        help="where programs in the node are told of the sky, on its loopback",
    )
    parser.add_argument("--store", required=True, type=Path, help="folder for objects, journal and scratch")
    parser.add_argument("--store-bytes", type=int, default=_DEFAULT_STORE_BYTES, help="quota for objects")
    parser.add_argument("--encrypt-at-rest", action="store_true", help="encrypt new objects on the node's disk")
    parser.add_argument("--scrub-every-s", type=float, default=EVERY_S, help="how often objects are looked through")
    parser.add_argument("--job-slots", type=_slots, default=1, help=f"how many jobs run at a time, up to {JOB_USERS}")
    parser.add_argument("--max-open-jobs", type=_count, default=10_000, help="how many jobs it has charge of at most")
    parser.add_argument("--jurisdiction", default="", type=_country, help="where the node lies, as ISO 3166-1 alpha-2")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        type=_peer,
        metavar="NAME=IPV4",
        help="where another node is; others are looked up in /etc/hosts",
    )
    parser.add_argument("--user", type=int, help="whom to be, when started as root: then jobs are users of their own")
    parser.add_argument("--first-job-user", type=int, default=_FIRST_JOB_USER, help=f"{JOB_USERS} from this one on")
    parser.add_argument("--job-processes", type=int, default=64, help="how many threads each may have")
    known = parser.parse_args(argv)
    return Options(
        identity=Identity(known.name, known.role, known.address, known.jurisdiction),
        port=known.port,
        control_socket=known.control_socket,
        endpoint=known.endpoint,
        store_dir=known.store.resolve(),
        store_bytes=known.store_bytes,
        encrypt_at_rest=known.encrypt_at_rest,
        scrub_every_s=known.scrub_every_s,
        bounds=Bounds(known.job_slots, known.max_open_jobs),
        peers=dict(known.peer),
        users=Users(known.user, known.first_job_user, known.job_processes) if known.user else None,
    )


async def serve(options: Options, channel: socket.socket, restarts: int) -> None:
    """Live until SIGTERM or SIGINT. Raises PlaneError."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    who = replace(options.identity, restarts=restarts)
    journal = Journal(options.store_dir / JOURNAL)
    audit = Audit(journal)
    first = FirstProcess(channel, options.users)
    credentials = Credentials(options.store_dir / IDENTITY, who, first)
    store = ObjectStore(
        options.store_dir / "objects",
        options.store_bytes,
        journal,
        jurisdiction=who.jurisdiction,
        keys=Keys(options.store_dir / IDENTITY / "keys"),
        encrypt=options.encrypt_at_rest,
    )
    logs = JobLogs(options.store_dir / "logs")
    executor = Executor(who.name, store, options.store_dir / "scratch", logs, first)
    sky = Sky(options.store_dir / "sky")
    ledger = Ledger(journal)
    store.in_use = ledger.need_of
    resolver = Resolver(options.peers, options.port, credentials)
    contacts = Contacts(resolver)
    healer = Healer(who.name, store, contacts, first, lambda row: ledger.senders(row.reasons))
    scrubber = Scrubber(who.name, store, audit, healer.heal)
    cargo = Cargo(who.name, store, ledger, scrubber, healer)
    way_back = WayBack(who.name, store, contacts, sky)
    courier = Courier(who.name, store, ledger, logs, contacts, sky, way_back, cargo)
    engine = Engine(
        who.name, who.jurisdiction, options.bounds, store, ledger, resolver, executor, logs, courier, way_back, sky
    )
    planes = Planes(who, credentials, audit, store, scrubber, engine, sky)
    endpoint = Endpoint(who, sky)
    await store.recover()
    await engine.recover()
    await store.collect()
    await planes.open_control(options.control_socket)
    opening = asyncio.create_task(_open(endpoint, planes, options))
    stopping = asyncio.create_task(stop.wait())
    scrubbing = asyncio.create_task(scrubber.run(options.scrub_every_s))
    try:
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            await stopping
    finally:
        opening.cancel()
        scrubbing.cancel()
        await engine.stop()
        await endpoint.close()
        await planes.close()
        await contacts.close()
        await scrubber.close()
        await audit.close()
        journal.close()


async def _open(endpoint: Endpoint, planes: Planes, options: Options) -> None:
    """Serve the node's own programs, then other nodes. Raises PlaneError."""
    if options.endpoint is not None:
        host, port = options.endpoint
        await wait_for_address(host)
        try:
            await endpoint.open(host, port)
        except OSError as error:  # a program in the node may have taken the port while the agent was away
            _log.warning("programs are told nothing of the sky: %s:%d: %s", host, port, error.strerror)
    await planes.open_data(options.port)


def main() -> int:
    """The program `skyrack-agent`. Its exit status."""
    options = parse_options(sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        rehearse(Path(folder))
    try:
        return begin(options)
    except OSError as error:
        _say(options, error)
        return 1


def begin(options: Options) -> int:
    """Be the node's first process until its end. Its exit status. Raises OSError."""
    return init.supervise(lambda channel, restarts: live(options, channel, restarts), options.users)


def live(options: Options, channel: socket.socket, restarts: int) -> int:
    """Be the agent until it is told to end. The exit status of the process."""
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {options.identity.name} %(message)s")
    wire.look_after_grpc(_end_at_once)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that may grow no more is an error like a full disk
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # and a client that has gone, an error of what is written to it
    memory.tune()
    try:
        check_checksums()
        lock = _lock(options.store_dir)
        asyncio.run(serve(options, channel, restarts))
        os.close(lock)
    except (PlaneError, JournalError, ChecksumError) as error:
        _say(options, error)
        return init.CANNOT_BE
    except (OSError, Refusal) as error:
        _say(options, error)
        return 1
    return 0


def _end_at_once(error: BaseException) -> NoReturn:
    """End as by kill -9, for another agent to follow: what is left of a server that has ended is not to be touched."""
    _log.error("a plane is lost, as gRPC's server has ended by itself: %s", error)
    os._exit(init.BROUGHT_DOWN)


def rehearse(folder: Path) -> None:
    """Do in an empty folder what every agent does first, so that those forked from here share the memory it takes."""
    journal = Journal(folder / JOURNAL)
    ObjectStore(folder / "objects", _DEFAULT_STORE_BYTES, journal)
    Ledger(journal)
    journal.close()
    asyncio.run(asyncio.sleep(0))


def _say(options: Options, error: Exception) -> None:
    sys.stderr.write(f"skyrack-agent {options.identity.name}: {error}\n")


def _lock(store_dir: Path) -> int:
    """Hold the store for this process alone, until it ends. Raises PlaneError."""
    store_dir.mkdir(parents=True, exist_ok=True)
    store_dir.chmod(0o711)  # jobs know the way through it to what is theirs
    lock = os.open(store_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PlaneError(f"store {store_dir} is in use by another agent") from None
    return lock


def _ipv4(text: str) -> str:
    return str(ipaddress.IPv4Address(text))


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    if not ipaddress.IPv4Address(host).is_loopback or not 0 < int(port) < 65536:
        raise ValueError(text)
    return host, int(port)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _slots(text: str) -> int:
    number = _count(text)
    if number > JOB_USERS:
        raise ValueError(text)
    return number


def _country(text: str) -> str:
    if not re.fullmatch("([A-Z]{2})?", text):
        raise ValueError(text)
    return text


def _peer(text: str) -> tuple[str, str]:
    name, found, address = text.partition("=")
    if not found or not name:
        raise ValueError(text)
    return name, _ipv4(address)
