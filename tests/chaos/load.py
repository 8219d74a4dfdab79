"""The load of a plan: objects and jobs through the run's socket, each tried again until it is acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import grpc

from controller.api.client import ControllerClient
from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import controller_pb2, jobs_pb2
from tests.chaos.plan import Put, Submit, Wish, content
from tests.chaos.promises import JobPromise, Promises, PutPromise, object_name
from tests.chaos.sky import GROUNDS, TIME_SCALE

T = TypeVar("T")

RETRY_S = 0.5
GIVE_UP_S: Final = 120.0
"""How long a client tries to have something acknowledged: longer than any fault lasts, a resume included."""

WORK = Path(__file__).with_name("work.py")
PASSING = ("no node can take it", "nodes can take it", "is not at", "not (or not wholly)")
"""What a placement that is refused says while faults are on: later it may do."""


class Load:
    """Clients of one run. Each method is a deed, for a thread of its own."""

    def __init__(self, api_socket: Path, seed: int, folder: Path, promises: Promises) -> None:
        self._api_socket, self._seed, self._folder, self.promises = api_socket, seed, folder, promises
        self._script = object_name(WORK.read_bytes())

    def prepare(self) -> None:
        """Store what every script job needs. Raises SkyrackError."""
        for via in GROUNDS:
            self._insist(f"the script at {via}", partial(ControllerClient.put, via=via, path=WORK))

    def put(self, deed: Put) -> None:
        """Store an object, and have it kept."""
        path = self._folder / f"object-{deed.number}"
        path.write_bytes(content(self._seed, deed.number, deed.size_bytes))
        info = self._insist(f"put {deed.number}", lambda client: client.put(deed.via, path))
        if info is None:
            return
        promise = PutPromise(deed, info.object, deed.size_bytes)
        self.promises.put(promise)
        if deed.replicas:
            request = controller_pb2.KeepRequest(via=deed.via, object=info.object, replicas=deed.replicas)
            kept = self._insist(f"keep {deed.number}", lambda client: client.keep(request))
            promise.keep_jobs = [each.job.spec.id for each in kept or ()]

    def submit(self, deed: Submit) -> None:
        """Hand in a job."""
        inputs = [self.promises.wait_for_put(number, GIVE_UP_S) for number in deed.inputs]
        spec = jobs_pb2.JobSpec(
            id=deed.id,
            on_node=deed.on_node,
            priority=deed.priority,
            max_attempts=deed.max_attempts,
            keep_outputs_on_node=deed.keeps_outputs,
            arguments=[deed.id, str(deed.run_s), str(deed.output_bytes), str(deed.steps), str(deed.fails)],
        )
        for each in inputs:
            if each is None:
                self.promises.given_up.append(f"submit {deed.id}: an input was never stored")
                return
            spec.inputs.add(object=each.object, at_node="" if each.deed.via == deed.via else each.deed.via)
        if deed.kind == "script":
            spec.script_object = self._script
        else:
            spec.command.argv.extend(["python3", "/etc/opt/work.py"])
        request = controller_pb2.ViaSubmitRequest(
            via=deed.via, spec=spec, policy=deed.policy, deadline_s=deed.deadline_s * TIME_SCALE
        )
        # Of a deadline, a placement may say for good that nobody would keep it.
        refusals = ("no node can take it",) if deed.deadline_s else ()
        told = self._insist(f"submit {deed.id}", lambda client: client.submit(request), refusals)
        if told is not None:
            self.promises.job(JobPromise(deed, told.job.spec))

    def wish(self, deed: Wish) -> None:
        """Cancel, suspend or resume a job."""
        promise = self.promises.wait_for_job(deed.job, GIVE_UP_S)
        if promise is None or (deed.verb == "resume" and not promise.suspended.wait(GIVE_UP_S)):
            return
        verbs: dict[str, Callable[[ControllerClient], object]] = {
            "cancel": lambda client: client.cancel(deed.job),
            "suspend": lambda client: client.suspend(deed.job),
            "resume": lambda client: client.resume_job(deed.job),
        }
        if self._insist(f"{deed.verb} {deed.job}", verbs[deed.verb], refusals=("there is nothing to",)) is not None:
            promise.cancelled |= deed.verb == "cancel"
        if deed.verb == "suspend":
            promise.suspended.set()

    def _insist(self, what: str, call: Callable[[ControllerClient], T], refusals: tuple[str, ...] = ()) -> T | None:
        """Call until it is answered. None when it is refused for good, or nobody acknowledged it in time."""
        deadline_mono_s = time.monotonic() + GIVE_UP_S
        while True:
            try:
                with ControllerClient(self._api_socket) as client:
                    return call(client)
            except InputError as error:
                last = str(error)
                if any(words in last for words in refusals):
                    return None
                if not any(words in last for words in PASSING):
                    self.promises.refused.append(f"{what}: {last}")
                    return None
            except (SkyrackError, grpc.RpcError) as error:
                last = str(error)
            if time.monotonic() > deadline_mono_s:
                self.promises.given_up.append(f"{what}: {last}")
                return None
            time.sleep(RETRY_S)
