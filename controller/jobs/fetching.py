"""Objects brought to a node on the ground, each by a job that waits for contacts."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

from controller.errors import SkyrackError
from controller.jobs.desk import JobDesk, state_name
from protos.skyrack.v1 import jobs_pb2, objects_pb2

_TOKEN_BYTES = 4


async def bring(desk: JobDesk, via: str, name: str, holder: str, terms: objects_pb2.ObjectTerms) -> None:
    """Have an object at a node on the ground, from a holder, kept under these terms. Who is cancelled while he waits
    leaves no job behind. Raises SkyrackError where it does not come."""
    spec = jobs_pb2.JobSpec(
        id=job_id("fetch", name), inputs=[jobs_pb2.JobInput(object=name, at_node=holder)], keep=terms,
        jurisdictions=terms.jurisdictions, transit=terms.transit,
    )  # fmt: skip
    try:
        await desk.submit(via, spec)
        job = (await desk.finished(spec.id)).job
    except asyncio.CancelledError:
        with suppress(SkyrackError):
            await desk.cancel(spec.id)
        raise
    if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
        raise SkyrackError(f"{name} did not come from {holder} to {via}: {state_name(job.state)}, {job.reason}")


def job_id(what: str, name: str) -> str:
    """An id of its own for each time: what was kept once may have been removed since."""
    return f"{what}-{name.removeprefix('sha256:')[:12]}-{secrets.token_hex(_TOKEN_BYTES)}"
