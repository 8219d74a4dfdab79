"""An open load's way to a run: many jobs handed in and followed at the same time, on the run's Unix socket."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import grpc

from controller.api.client import CALL_S, ControllerClient, told
from protos.skyrack.v1 import controller_pb2, controller_pb2_grpc, jobs_pb2


class LoadClient:
    """One run, asked by one event loop. An async context manager; raises as ControllerClient does."""

    def __init__(self, api_socket: Path) -> None:
        self._api_socket = api_socket

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(f"unix:{self._api_socket}")
        self._stub = controller_pb2_grpc.ControllerStub(self._channel)
        self._client = ControllerClient(self._api_socket).__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        self._client.__exit__(None, None, None)

    async def status(self) -> controller_pb2.RunStatus:
        """The run as it stands."""
        return await asyncio.to_thread(self._client.status)

    async def seek(self, t_s: float) -> controller_pb2.SkyClock:
        """Go to a moment of the sky."""
        return await asyncio.to_thread(self._client.seek, t_s)

    async def put(self, via: str, path: Path) -> str:
        """Store a file at a node on the ground; the object's name."""
        return (await asyncio.to_thread(self._client.put, via, path)).object

    async def get(self, via: str, name: str) -> bytes:
        """A small object that a node on the ground holds."""
        content = io.BytesIO()
        await asyncio.to_thread(self._client.get, via, name, content)
        return content.getvalue()

    async def submit(self, via: str, spec: jobs_pb2.JobSpec, policy: str) -> controller_pb2.JobAtGateway:
        """Hand a job to a node on the ground."""
        request = controller_pb2.ViaSubmitRequest(via=via, spec=spec, policy=policy)
        with told():
            return await self._stub.Submit(request, timeout=CALL_S)

    async def watch(self, job_id: str, after_revision: int) -> AsyncIterator[controller_pb2.JobAtGateway]:
        """A job now and at every change, until it is final. The caller has the deadline."""
        call = self._stub.WatchJob(controller_pb2.FindJobRequest(id=job_id, after_revision=after_revision))
        try:
            with told():
                async for entry in call:
                    yield entry
        finally:
            call.cancel()

    async def cancel(self, job_id: str) -> None:
        """Ask for a job's end."""
        await asyncio.to_thread(self._client.cancel, job_id)

    async def delete(self, via: str, name: str) -> None:
        """Have a node on the ground forget an object."""
        with told():
            await self._stub.DeleteObject(controller_pb2.ViaObjectRequest(via=via, object=name), timeout=CALL_S)
