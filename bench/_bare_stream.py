"""The far end of a bare gRPC stream, under the agents' TLS, in a process of its own: `python -m … FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from bench.agent import BARE_ADDRESS, BARE_PORT, InPlace
from node_agent.security import wire
from node_agent.security.identity import Credentials, Identity
from protos.skyrack.v1 import objects_pb2


async def swallow(requests: AsyncIterator[objects_pb2.PutRequest], _: object) -> objects_pb2.ObjectInfo:
    """Take chunks and forget them: the floor that a put stands on."""
    size_bytes = 0
    async for request in requests:
        size_bytes += len(request.chunk)
    return objects_pb2.ObjectInfo(size_bytes=size_bytes)


async def main(folder: Path) -> None:
    """Serve until killed."""
    credentials = Credentials(folder / "bare", Identity("bare", "gateway", BARE_ADDRESS), InPlace())
    server = grpc.aio.server()
    handler = grpc.stream_unary_rpc_method_handler(
        swallow, objects_pb2.PutRequest.FromString, objects_pb2.ObjectInfo.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("skyrack.v1.Objects", {"Put": handler}),))
    server.add_secure_port(f"{BARE_ADDRESS}:{BARE_PORT}", wire.server_credentials(credentials))
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
