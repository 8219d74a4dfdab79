"""The agent's two planes.

The control plane is one Unix socket for the emulator, open from the start. The data plane is TCP with mutual TLS on the
node's own address, open as soon as the node has that address and a certificate. Jobs and objects reach satellites over
the data plane alone.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from node_agent.errors import Refusal
from node_agent.jobs.engine import Engine
from node_agent.jobs.service import Jobs
from node_agent.objects import chunks
from node_agent.objects.scrub import Scrubber
from node_agent.objects.service import Objects
from node_agent.objects.store import ObjectStore
from node_agent.security import wire
from node_agent.security.access import EMULATOR, Guard, caller
from node_agent.security.audit import Audit
from node_agent.security.identity import Credentials, Identity
from node_agent.services import Node
from node_agent.sky.sky import Sky
from protos.skyrack.v1 import jobs_pb2, jobs_pb2_grpc, node_pb2_grpc

_log = logging.getLogger(__name__)

JOBS: Final = "skyrack.v1.Jobs"
OBJECTS: Final = "skyrack.v1.Objects"
NODE: Final = "skyrack.v1.Node"

_ADDRESS_DEADLINE_S = 300.0
_ADDRESS_POLL_S = 0.1
_GRACE_S = 0.5
_UNIX_PATH_MAX_BYTES = 107


class PlaneError(Exception):
    """A plane cannot be opened. Says which, where and why."""


class Planes:
    """Both planes of one agent, from open to close."""

    def __init__(
        self,
        identity: Identity,
        credentials: Credentials,
        audit: Audit,
        store: ObjectStore,
        scrubber: Scrubber,
        engine: Engine,
        sky: Sky,
    ) -> None:
        self._identity = identity
        self._credentials = credentials
        self._audit = audit
        self._store = store
        self._scrubber = scrubber
        self._engine = engine
        self._sky = sky
        self._health = health.aio.HealthServicer()
        self._servers: list[grpc.aio.Server] = []

    async def open_control(self, path: Path) -> None:
        """Serve the emulator. After: the socket exists, for its owner alone. Raises PlaneError."""
        if len(os.fsencode(path)) > _UNIX_PATH_MAX_BYTES:
            raise PlaneError(
                f"control socket {path}: longer than {_UNIX_PATH_MAX_BYTES} bytes, as far as a socket's path goes"
            )
        for service in (JOBS, OBJECTS):
            await self._health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        server = self._new_server(Guard(self._audit, self._job, of_plane=EMULATOR))
        node = Node(self._identity, self._credentials, self._audit, self._store, self._engine, self._sky)
        node_pb2_grpc.add_NodeServicer_to_server(node, server)
        if self._identity.role != "satellite":
            self._add_work(server, lambda: self._identity.jurisdiction)
        mask = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise PlaneError(f"control socket {path}: {error}") from error
        finally:
            os.umask(mask)
        await server.start()
        self._servers.append(server)

    async def open_data(self, port: int) -> None:
        """Serve other nodes, once the node has its address and its certificate. Raises PlaneError."""
        address = self._identity.address
        await wait_for_address(address)
        await self._credentials.wait()
        server = self._new_server(Guard(self._audit, self._job))
        self._add_work(server, lambda: caller().jurisdiction)
        reflection.enable_server_reflection([JOBS, OBJECTS, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        try:
            server.add_secure_port(f"{address}:{port}", wire.server_credentials(self._credentials))
        except RuntimeError as error:
            raise PlaneError(f"data plane {address}:{port}: {error}") from error
        await server.start()
        self._servers.append(server)
        for service in (JOBS, OBJECTS):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        _log.info("data plane open at %s:%d", address, port)

    async def close(self) -> None:
        """Take no more calls, and give those under way a moment."""
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(*(server.stop(_GRACE_S) for server in self._servers))

    def _new_server(self, guard: Guard) -> grpc.aio.Server:
        server = grpc.aio.server(interceptors=[guard], options=wire.SERVER_OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    def _add_work(self, server: grpc.aio.Server, asker_lies_in: Callable[[], str]) -> None:
        objects = Objects(self._store, self._scrubber, asker_lies_in)
        chunks.serve(objects, server)
        jobs_pb2_grpc.add_JobsServicer_to_server(Jobs(self._engine), server)

    async def _job(self, job_id: str) -> jobs_pb2.Job | None:
        try:
            return await self._engine.told.job(job_id)
        except Refusal:
            return None


async def wait_for_address(address: str) -> None:
    """Wait until one can bind to the address: the emulator gives it to the node shortly after its start.

    Raises PlaneError.
    """
    loop = asyncio.get_running_loop()
    deadline_mono_s = loop.time() + _ADDRESS_DEADLINE_S
    while not _has_address(address):
        if loop.time() > deadline_mono_s:
            raise PlaneError(
                f"data plane: the node was not given its address {address} within {_ADDRESS_DEADLINE_S:.0f} s"
            )
        await asyncio.sleep(_ADDRESS_POLL_S)


def _has_address(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return False
            raise PlaneError(f"data plane: address {address}: {error.strerror}") from error
    return True
