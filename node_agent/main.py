"""The agent's command line and its life as a process."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node_agent import identity, wire
from node_agent.audit import Audit
from node_agent.engine import Engine
from node_agent.identity import Credentials, Identity, IdentityError
from node_agent.journal import Journal, JournalError
from node_agent.ledger import Ledger
from node_agent.peer import Resolver
from node_agent.server import PlaneError, Planes
from node_agent.sky import Sky
from node_agent.store import ObjectStore

_log = logging.getLogger(__name__)

_DEFAULT_STORE_BYTES = 2 * 1024**3
IDENTITY = "identity"


@dataclass(frozen=True)
class Options:
    """What the agent was told to be."""

    identity: Identity
    port: int
    control_socket: Path
    store_dir: Path
    store_bytes: int
    job_slots: int
    peers: dict[str, str]


def parse_options(argv: Sequence[str]) -> Options:
    """The command line. Ends the process with status 2 and a message if it is wrong."""
    parser = argparse.ArgumentParser(prog="skyrack-agent", description="The program in every node of a skyrack run.")
    parser.add_argument("--name", required=True, help="the node's name")
    parser.add_argument("--role", required=True, choices=identity.ROLES)
    parser.add_argument("--address", required=True, type=_ipv4, help="the node's IPv4 address in the emulated network")
    parser.add_argument("--port", type=int, default=wire.DATA_PORT, help="TCP port of every node's data plane")
    parser.add_argument("--control-socket", required=True, type=Path, help="Unix socket of the control plane")
    parser.add_argument("--store", required=True, type=Path, help="folder for objects, journal and scratch")
    parser.add_argument("--store-bytes", type=int, default=_DEFAULT_STORE_BYTES, help="quota for objects")
    parser.add_argument("--job-slots", type=int, default=1, help="how many jobs run at a time")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        type=_peer,
        metavar="NAME=IPV4",
        help="where another node is; others are looked up in /etc/hosts",
    )
    known = parser.parse_args(argv)
    return Options(
        identity=Identity(known.name, known.role, known.address),
        port=known.port,
        control_socket=known.control_socket,
        store_dir=known.store.resolve(),
        store_bytes=known.store_bytes,
        job_slots=known.job_slots,
        peers=dict(known.peer),
    )


async def serve(options: Options) -> None:
    """Live until SIGTERM or SIGINT. Raises PlaneError."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    journal = Journal(options.store_dir / "journal.db")
    audit = Audit(journal)
    credentials = Credentials(options.store_dir / IDENTITY, options.identity)
    store = ObjectStore(options.store_dir / "objects", options.store_bytes)
    ledger = Ledger(options.store_dir / "jobs")
    resolver = Resolver(options.peers, options.port, credentials)
    name, role = options.identity.name, options.identity.role
    sky = Sky()
    engine = Engine(name, role, store, ledger, resolver, options.store_dir / "scratch", options.job_slots, sky)
    planes = Planes(options.identity, credentials, audit, store, engine, sky)
    if os.getpid() == 1:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, engine.orphans.reap)
    await engine.recover()
    await planes.open_control(options.control_socket)
    opening = asyncio.create_task(planes.open_data(options.port))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            await stopping
    finally:
        opening.cancel()
        await engine.stop()
        await planes.close()
        await audit.close()
        journal.close()


def main() -> int:
    """The program `skyrack-agent`. Its exit status."""
    return live(parse_options(sys.argv[1:]))


def live(options: Options) -> int:
    """Be the agent until it is told to end. The exit status of the process."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a peer that vanishes is news to the job, one refused to itself
    os.environ |= wire.ENVIRONMENT
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {options.identity.name} %(message)s")
    try:
        lock = _lock(options.store_dir)
        identity.prepare(options.store_dir / IDENTITY, options.identity.name)
        asyncio.run(serve(options))
        os.close(lock)
    except (PlaneError, IdentityError, JournalError, OSError) as error:
        sys.stderr.write(f"skyrack-agent {options.identity.name}: {error}\n")
        return 1
    return 0


def rehearse(folder: Path) -> None:
    """Do in an empty folder what every agent does first, so that those forked from here share the memory it takes."""
    ObjectStore(folder / "objects", _DEFAULT_STORE_BYTES)
    Ledger(folder / "jobs")
    identity.rehearse(folder / IDENTITY)
    asyncio.run(asyncio.sleep(0))


def _lock(store_dir: Path) -> int:
    """Hold the store for this process alone, until it ends. Raises PlaneError."""
    store_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(store_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PlaneError(f"store {store_dir} is in use by another agent") from None
    return lock


def _ipv4(text: str) -> str:
    return str(ipaddress.IPv4Address(text))


def _peer(text: str) -> tuple[str, str]:
    name, found, address = text.partition("=")
    if not found or not name:
        raise ValueError(text)
    return name, _ipv4(address)
