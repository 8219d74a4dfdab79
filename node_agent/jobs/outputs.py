"""What a job has left, into the store: copied, since what stays the job's can still be changed by the next of its user.

Before: nothing of the job runs. Regular files alone count; no symbolic link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from node_agent.blocking import to_its_end
from node_agent.errors import FailedPrecondition
from node_agent.jobs.states import MAX_OUTPUTS
from node_agent.objects.catalog import PUT, for_job
from node_agent.objects.store import ObjectStore
from node_agent.objects.terms import Terms
from node_agent.processes import leavings
from protos.skyrack.v1 import jobs_pb2, objects_pb2

MAX_NAMES_BYTES = 1024**2  # all of them together: the job has to fit a message


async def collect(folder: Path, spec: jobs_pb2.JobSpec, store: ObjectStore, node: str) -> list[jobs_pb2.JobOutput]:
    """Copy every file in a folder into the store, under the job's terms. Before: the agent may read them.

    Raises FailedPrecondition for more than can be told of, Exhausted, OSError.
    """
    outputs = []
    for path in await to_its_end(_names, folder):
        with _opened(folder, path) as fd:
            adopted, size_bytes = await store.adopt_fd(fd, path, terms_of(spec), why_kept(spec, node))
        outputs.append(jobs_pb2.JobOutput(name=_told(path), object=adopted, size_bytes=size_bytes, at_node=node))
    return outputs


def terms_of(spec: jobs_pb2.JobSpec) -> Terms:
    """Where what a job makes may lie."""
    return Terms.of(objects_pb2.ObjectTerms(jurisdictions=spec.jurisdictions, transit=spec.transit))


def why_kept(spec: jobs_pb2.JobSpec, node: str) -> str:
    """Why an output lies at a node: for good where it was asked for, elsewhere until the result is back there."""
    is_at_home = spec.return_to in ("", node)
    return PUT if is_at_home or spec.keep_outputs_on_node else for_job(spec.id)


def is_empty(folder: Path) -> bool:
    """Whether nothing was left, or the folder itself is gone."""
    try:
        return not os.listdir(folder)
    except PermissionError:
        return False
    except OSError:
        return True


def _names(folder: Path) -> list[str]:
    """The paths of all regular files, from the folder. Blocks."""
    names: list[str] = []
    names_bytes = 0
    with suppress(FileNotFoundError, NotADirectoryError), leavings.opened(str(folder)) as root:
        for found in leavings.walk(root):
            if stat.S_ISREG(found.entry.st_mode):
                names.append(found.path)
                names_bytes += len(_told(found.path).encode())
            if len(names) > MAX_OUTPUTS or names_bytes > MAX_NAMES_BYTES:
                raise FailedPrecondition(
                    f"it left more outputs than can be told of: at most {MAX_OUTPUTS}, with names of "
                    f"{MAX_NAMES_BYTES} bytes together; pack them into one file"
                )
    return sorted(names)


@contextmanager
def _opened(folder: Path, path: str) -> Iterator[int]:
    """A file to be read, no folder on the way to it a link."""
    *parents, name = path.split("/")
    with ExitStack() as stack:
        at = stack.enter_context(leavings.opened(str(folder)))
        for each in parents:
            at = stack.enter_context(leavings.opened(each, at))
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        stack.callback(os.close, fd)
        yield fd


def _told(path: str) -> str:
    """A path as the wire can carry it: what is not UTF-8 is spelt out."""
    return os.fsencode(path).decode(errors="backslashreplace")
