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
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node_agent.engine import Bounds, Engine
from node_agent.journal import Journal, JournalError
from node_agent.ledger import Ledger
from node_agent.peer import Resolver
from node_agent.server import PlaneError, Planes
from node_agent.services import Identity
from node_agent.sky import Sky
from node_agent.store import ObjectStore
from node_agent.wire import DATA_PORT

_log = logging.getLogger(__name__)

JOURNAL = "journal.db"
_DEFAULT_STORE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Options:
    """What the agent was told to be."""

    identity: Identity
    port: int
    control_socket: Path
    store_dir: Path
    store_bytes: int
    bounds: Bounds
    peers: dict[str, str]


def parse_options(argv: Sequence[str]) -> Options:
    """The command line. Ends the process with status 2 and a message if it is wrong."""
    parser = argparse.ArgumentParser(prog="skyrack-agent", description="The program in every node of a skyrack run.")
    parser.add_argument("--name", required=True, help="the node's name")
    parser.add_argument("--role", required=True, choices=["satellite", "gateway", "terminal"])
    parser.add_argument("--address", required=True, type=_ipv4, help="the node's IPv4 address in the emulated network")
    parser.add_argument("--port", type=int, default=DATA_PORT, help="TCP port of every node's data plane")
    parser.add_argument("--control-socket", required=True, type=Path, help="Unix socket of the control plane")
    parser.add_argument("--store", required=True, type=Path, help="folder for objects, journal and scratch")
    parser.add_argument("--store-bytes", type=int, default=_DEFAULT_STORE_BYTES, help="quota for objects")
    parser.add_argument("--job-slots", type=_count, default=1, help="how many jobs run at a time")
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
    known = parser.parse_args(argv)
    return Options(
        identity=Identity(known.name, known.role, known.address, known.jurisdiction),
        port=known.port,
        control_socket=known.control_socket,
        store_dir=known.store.resolve(),
        store_bytes=known.store_bytes,
        bounds=Bounds(known.job_slots, known.max_open_jobs),
        peers=dict(known.peer),
    )


async def serve(options: Options) -> None:
    """Live until SIGTERM or SIGINT. Raises PlaneError."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    journal = Journal(options.store_dir / JOURNAL)
    store = ObjectStore(options.store_dir / "objects", options.store_bytes)
    resolver = Resolver(options.peers, options.port)
    sky = Sky(options.store_dir / "sky")
    engine = Engine(
        options.identity.name,
        lambda: options.identity.jurisdiction,
        options.bounds,
        options.store_dir,
        store,
        Ledger(journal),
        resolver,
        sky,
    )
    planes = Planes(options.identity, store, engine, sky)
    if os.getpid() == 1:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, engine.runner.orphans.reap)
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
        journal.close()


def main() -> int:
    """The program `skyrack-agent`. Its exit status."""
    return live(parse_options(sys.argv[1:]))


def live(options: Options) -> int:
    """Be the agent until it is told to end. The exit status of the process."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # a peer that vanishes is news to the job alone
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {options.identity.name} %(message)s")
    try:
        lock = _lock(options.store_dir)
        asyncio.run(serve(options))
        os.close(lock)
    except (PlaneError, JournalError, OSError) as error:
        sys.stderr.write(f"skyrack-agent {options.identity.name}: {error}\n")
        return 1
    return 0


def rehearse(folder: Path) -> None:
    """Do in an empty folder what every agent does first, so that those forked from here share the memory it takes."""
    ObjectStore(folder / "objects", _DEFAULT_STORE_BYTES)
    journal = Journal(folder / JOURNAL)
    Ledger(journal)
    journal.close()
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


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
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
