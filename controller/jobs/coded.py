"""The controller's desk for objects that are kept as fragments: codes them, has each fragment kept at a node of its
own, tells how they stand, has them removed. What is half done is in the journal, and goes on after a kill -9.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from controller.agents import FINAL_STATES, AgentClient
from controller.coding import Code, Coded, Encoder
from controller.errors import InputError, SkyrackError
from controller.jobs.desk import JobDesk, state_name
from controller.jobs.fetching import job_id
from controller.jobs.journal import Entry, Fragments, Journal
from controller.jobs.orders import Orders, explanation_of
from controller.jobs.placement import Item, Order, across_planes, amount, infeasible, short
from controller.jobs.policies import policy_named
from controller.jobs.sight import Sight
from protos.skyrack.v1 import controller_pb2, jobs_pb2, objects_pb2

SPOOL = "coded-"
ASK_AGAIN_S = 1.0
DROP_PAUSES_S = (0.5, 1.0, 2.0, 0.0)
REMOVAL_WAIT_S = 10.0
"""How long who has an object removed waits for it. It goes on after that."""

_NAME = re.compile(r"sha256:[0-9a-f]{64}")


class CodedDesk:
    """One run's. Of one event loop."""

    def __init__(
        self,
        grounds: Mapping[str, AgentClient],
        desk: JobDesk,
        journal: Journal,
        orders: Orders,
        sight: Sight,
        folder: Path,
    ) -> None:
        """`folder`: on a disk, where fragments lie on their way to a node on the ground."""
        self._grounds, self._desk, self._journal = grounds, desk, journal
        self._orders, self._sight, self._folder = orders, sight, folder
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._left: dict[str, list[str]] = {}  # of objects that are being removed, nodes that have not done it yet
        self._one_at_a_time: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take_up(self) -> None:
        """Go on with what the journal has."""
        for left in self._folder.glob(f"{SPOOL}*"):
            await asyncio.to_thread(shutil.rmtree, left)
        for each in await asyncio.to_thread(self._journal.all_coded):
            if each.stands == "placing":
                self._start(each.coded, self._settle(each.coded))
            elif each.stands == "removing":
                self._start(each.coded, self._remove(each.coded))

    async def put(
        self, header: controller_pb2.PutCodedRequest.Header, chunks: AsyncIterator[bytes]
    ) -> AsyncGenerator[controller_pb2.CodedObject, None]:
        """Code an object and have its fragments kept: how they stand, at every change until all are. Raises InputError,
        and SkyrackError when one cannot be kept, and so none is."""
        async with self._one_at_a_time.setdefault(header.object, asyncio.Lock()):
            known = await asyncio.to_thread(self._journal.coded, header.object)
            if known is None:
                coded = await self._begun(header, chunks)
                task: asyncio.Task[None] | None = self._start(coded, self._settle(coded))
            else:
                coded = known.coded
                _check_same(known, header)
                task = self._tasks.get(coded.object)
        told = None
        while True:
            is_over = task is None or task.done()
            if task is not None and is_over:
                if task.cancelled():
                    raise SkyrackError(f"{short(coded.object)} is being removed")
                task.result()
            for status in await self.told(coded.object):
                if status != told:
                    yield status
                    told = status
            if task is None or is_over:
                return
            await asyncio.wait({task}, timeout=ASK_AGAIN_S)

    async def told(self, name: str = "") -> list[controller_pb2.CodedObject]:
        """How an object stands, or all do: none where there is none, or it is being removed."""
        known = await asyncio.to_thread(self._journal.all_coded)
        known = [each for each in known if name in ("", each.coded.object) and each.stands != "removing"]
        nodes = [fragment.node for each in known for fragment in each.coded.fragments]
        away, damaged = await asyncio.gather(self._sight.away(nodes), self._sight.damaged_at(nodes))
        for each in known:
            for fragment in each.coded.fragments:
                fragment.state, fragment.reason = await self._stands(each, fragment, away, damaged)
            each.coded.may_lose = sum(fragment.state == "kept" for fragment in each.coded.fragments) - each.coded.k
        return [each.coded for each in known]

    async def drop(self, via: str, name: str) -> list[str]:
        """Have all fragments of an object removed, by way of a node on the ground; which nodes have not done it yet.

        Raises SkyrackError where one refuses.
        """
        self._desk.gateway(via)
        async with self._one_at_a_time.setdefault(name, asyncio.Lock()):
            known = await asyncio.to_thread(self._journal.coded, name)
            if known is None:
                return []
            coded = known.coded
            if known.stands != "removing":
                coded.via = via
                await asyncio.to_thread(self._journal.keep_coded, coded, "removing")
                if under_way := self._tasks.get(name):
                    under_way.cancel()
                    await asyncio.wait({under_way})
                self._start(coded, self._remove(coded))
        task = self._tasks[name]
        await asyncio.wait({task}, timeout=REMOVAL_WAIT_S)
        if task.done():
            task.result()
            return []
        return list(self._left.get(name, ()))

    async def close(self) -> None:
        """Leave what is under way to whoever opens the journal next."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # --- to their nodes ---

    async def _begun(
        self, header: controller_pb2.PutCodedRequest.Header, chunks: AsyncIterator[bytes]
    ) -> controller_pb2.CodedObject:
        """All fragments handed over, or nothing of it left."""
        code, via = Code(header.k, header.m), header.via
        code.check_size(header.size_bytes)
        self._desk.gateway(via)
        if not _NAME.fullmatch(header.object):
            raise InputError(f"{header.object[:100]!r} is no object's name: sha256: and 64 digits 0-9a-f")
        spec = jobs_pb2.JobSpec(
            id=job_id("keep", header.object), inputs=[jobs_pb2.JobInput(object=header.object)],
            keep=objects_pb2.ObjectTerms(), jurisdictions=header.jurisdictions, transit=header.transit,
        )  # fmt: skip
        await self._orders.restrict(via, spec)
        fragment_bytes = await asyncio.to_thread(code.fragment_bytes, header.size_bytes)
        places = await self._places(code, spec, via, header.object, fragment_bytes)
        await self._check_room(via, code.count * fragment_bytes)
        with tempfile.TemporaryDirectory(prefix=SPOOL, dir=self._folder) as folder:
            made = await _encoded(code, header, chunks, Path(folder))
            coded = controller_pb2.CodedObject(
                object=header.object, size_bytes=header.size_bytes, k=code.k, m=code.m, via=via,
                jurisdictions=spec.jurisdictions, transit=spec.transit, fragment_bytes=fragment_bytes,
                piece_bytes=made.piece_bytes,
            )  # fmt: skip
            for index, (name, place) in enumerate(zip(made.names, places, strict=True)):
                coded.fragments.add(object=name, node=place.chosen, job=f"{spec.id}-{index}")
            try:
                await asyncio.to_thread(self._journal.keep_coded, coded, "placing")
                for index, (path, place) in enumerate(zip(made.files, places, strict=True)):
                    await self._hand_over(coded, index, path, place)
            except BaseException:
                await asyncio.to_thread(self._journal.keep_coded, coded, "removing")
                self._start(coded, self._remove(coded))
                raise
        return coded

    async def _places(
        self, code: Code, spec: jobs_pb2.JobSpec, via: str, name: str, fragment_bytes: int
    ) -> list[controller_pb2.Explanation]:
        """Where fragments go, and why: to satellites, as many of each plane as of any other as far as that can be.

        Raises InputError where there are too few.
        """
        order = Order(
            via=via,
            items=(Item(name, fragment_bytes, (via,)),),
            jurisdictions=tuple(spec.jurisdictions),
            transit=spec.transit,
            is_keep=True,
        )
        decision, facts = await self._orders.decided(order, policy_named("spread"), self._desk.open_at())
        nodes = across_planes(decision, facts, code.count)
        if len(nodes) < code.count:
            reason = f"{len(nodes)} can take one" if nodes else infeasible(decision)
            raise InputError(f"{code} fragments of {short(name)} want {code.count} nodes: {reason}")
        return [explanation_of(spec, via, self._orders.now_s, replace(decision, chosen=node)) for node in nodes]

    async def _check_room(self, via: str, needed_bytes: int) -> None:
        """Raise SkyrackError where fragments have no room on their way."""
        info = await self._grounds[via].info()
        free_bytes = {
            f"the store of {via}": info.store_quota_bytes - info.store_bytes,
            f"the disk of {self._folder}": shutil.disk_usage(self._folder).free,
        }
        for where, left_bytes in free_bytes.items():
            if needed_bytes > left_bytes:
                free = amount(max(left_bytes, 0))
                raise SkyrackError(
                    f"all fragments together have {amount(needed_bytes)}, and {free} of {where} are free"
                )

    async def _hand_over(
        self, coded: controller_pb2.CodedObject, index: int, path: Path, place: controller_pb2.Explanation
    ) -> None:
        """A fragment at the node on the ground, for the job alone that brings it to its own node."""
        each = coded.fragments[index]
        residency = objects_pb2.ObjectTerms(jurisdictions=coded.jurisdictions, transit=coded.transit)
        await self._grounds[coded.via].put_file(path, residency, for_job=each.job)
        await asyncio.to_thread(path.unlink)
        keep = objects_pb2.ObjectTerms(
            jurisdictions=coded.jurisdictions, transit=coded.transit, holders=[each.node], part=_part(coded, index)
        )
        spec = jobs_pb2.JobSpec(
            id=each.job, on_node=each.node, inputs=[jobs_pb2.JobInput(object=each.object)], keep=keep,
            jurisdictions=coded.jurisdictions, transit=coded.transit,
        )  # fmt: skip
        request = controller_pb2.ViaSubmitRequest(via=coded.via, spec=spec, policy=place.policy)
        await self._desk.take(Entry(request, spec, place, "placed"))

    async def _settle(self, coded: controller_pb2.CodedObject) -> None:
        """Wait until all are kept. When one cannot be, have none kept. Raises SkyrackError, which says so."""
        tasks = [asyncio.create_task(self._kept(coded, index)) for index in range(len(coded.fragments))]
        try:
            for task in asyncio.as_completed(tasks):
                await task
        except SkyrackError as error:
            placed = [each.node for each, task in zip(coded.fragments, tasks, strict=True) if _has_succeeded(task)]
            await asyncio.to_thread(self._journal.keep_coded, coded, "removing")
            self._start(coded, self._remove(coded))
            so_far = f"those that were kept already, at {', '.join(placed)}, are" if placed else "the others are"
            raise SkyrackError(f"{error}; {so_far} removed again") from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._journal.keep_coded, coded, "kept")

    async def _kept(self, coded: controller_pb2.CodedObject, index: int) -> None:
        """Wait until a fragment is at its node. Raises SkyrackError."""
        each = coded.fragments[index]
        job = await self._final(each.job)
        if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
            raise SkyrackError(f"fragment {index} is not kept at {each.node}: {state_name(job.state)}, {job.reason}")
        terms = objects_pb2.ObjectTerms(jurisdictions=coded.jurisdictions, transit=coded.transit)
        info = objects_pb2.ObjectInfo(object=each.object, size_bytes=coded.fragment_bytes, terms=terms)
        await asyncio.to_thread(self._journal.holds, each.node, [info])

    # --- and away ---

    async def _remove(self, coded: controller_pb2.CodedObject) -> None:
        """Have no node hold a fragment any more. Raises SkyrackError for those that refuse."""
        self._left[coded.object] = [each.node for each in coded.fragments]
        told = await asyncio.gather(*(self._removed(coded, each) for each in coded.fragments), return_exceptions=True)
        refusals = [error for error in told if error is not None]
        for error in refusals:
            if not isinstance(error, SkyrackError):
                raise error
        await self._sweep(coded)
        if refusals:
            await asyncio.to_thread(self._journal.keep_coded, coded, "kept")
            raise SkyrackError("; ".join(map(str, refusals)))
        await asyncio.to_thread(self._journal.forget_coded, coded.object)

    async def _removed(self, coded: controller_pb2.CodedObject, each: controller_pb2.CodedObject.Fragment) -> None:
        """Wait until the node of a fragment has it no more. Raises SkyrackError where it refuses."""
        with suppress(InputError):  # it was never handed over
            await self._ended(each.job)  # whatever it says: what was cancelled may have been kept by then
            await self._dropped(coded, each)
        self._left[coded.object].remove(each.node)

    async def _dropped(self, coded: controller_pb2.CodedObject, each: controller_pb2.CodedObject.Fragment) -> None:
        """Have its node hold a fragment no more. Raises SkyrackError where it refuses, and not only while a transfer
        breaks off."""
        inputs = [jobs_pb2.JobInput(object=each.object, at_node=each.node)]
        for pause_s in DROP_PAUSES_S:
            drop = jobs_pb2.JobSpec(id=job_id("drop", each.object), drop=True, inputs=inputs)
            await self._desk.submit(coded.via, drop)
            job = await self._final(drop.id)
            if job.state == jobs_pb2.JOB_STATE_SUCCEEDED:
                await asyncio.to_thread(self._journal.dropped, each.node, each.object)
                return
            await asyncio.sleep(pause_s)
        raise SkyrackError(f"{short(each.object)} is not removed: {state_name(job.state)}, {job.reason}")

    async def _sweep(self, coded: controller_pb2.CodedObject) -> None:
        """Remove what lies at nodes on the ground: on its way to a job that was never handed over, or read there."""
        names = {each.object for each in coded.fragments}
        for via, node in self._grounds.items():
            with suppress(SkyrackError):  # it is away, or needs it now
                for info in await node.objects():
                    if info.object in names:
                        await node.delete(info.object)
                        await asyncio.to_thread(self._journal.dropped, via, info.object)

    # --- jobs ---

    async def _ended(self, job: str) -> jobs_pb2.Job:
        """A job, once it is final; if it is not, its end is asked for. Raises InputError where there is none."""
        while True:
            try:
                if (await self._desk.find(job)).job.state not in FINAL_STATES:
                    await self._desk.cancel(job)
            except InputError:
                raise
            except SkyrackError:  # the node on the ground is away
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                return await self._final(job)

    async def _final(self, job: str) -> jobs_pb2.Job:
        """A job, once it is final. Raises InputError where there is none."""
        while True:
            try:
                return (await self._desk.finished(job)).job
            except InputError:
                raise
            except SkyrackError:  # the node on the ground is away
                await asyncio.sleep(ASK_AGAIN_S)

    async def _stands(
        self,
        known: Fragments,
        fragment: controller_pb2.CodedObject.Fragment,
        away: Mapping[str, str],
        damaged: Mapping[tuple[str, str], str],
    ) -> tuple[str, str]:
        """The state of a fragment, and why."""
        if known.stands == "placing":
            try:
                job = (await self._desk.find(fragment.job)).job
            except SkyrackError as error:
                return "on its way", str(error)
            if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
                return "on its way", job.reason
        if why := away.get(fragment.node):
            return "away", why
        if wrong := damaged.get((fragment.node, fragment.object)):
            return "damaged", wrong
        return "kept", self._sight.blackout_of(fragment.node)

    def _start(self, coded: controller_pb2.CodedObject, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Go on with an object's fragments. What it comes to, the journal and the jobs' own records have."""
        task = self._tasks[coded.object] = asyncio.create_task(work, name=f"fragments of {coded.object}")
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task


async def _encoded(
    code: Code, header: controller_pb2.PutCodedRequest.Header, chunks: AsyncIterator[bytes], folder: Path
) -> Coded:
    """The fragments as files. Raises InputError for other bytes than the name's, SkyrackError for a full disk."""
    left_bytes = header.size_bytes
    try:
        with Encoder(code, header.object, folder) as encoder:
            async for chunk in chunks:
                left_bytes -= len(chunk)
                if left_bytes < 0:
                    break
                await asyncio.to_thread(encoder.take, chunk)
            if left_bytes:
                raise InputError(f"{header.object} came with {'fewer' if left_bytes > 0 else 'more'} bytes than it has")
            return await asyncio.to_thread(encoder.finish)
    except OSError as error:
        raise SkyrackError(f"fragments cannot be written to {folder}: {error.strerror}") from error


def _check_same(known: Fragments, header: controller_pb2.PutCodedRequest.Header) -> None:
    """Raise InputError unless an object that is coded already is asked for as it is."""
    coded = known.coded
    if known.stands == "removing":
        raise InputError(f"{short(coded.object)} is being removed: put it again when that is done")
    of_known = coded.k, coded.m, sorted(coded.jurisdictions), coded.transit
    if of_known != (header.k, header.m, sorted(header.jurisdictions), header.transit):
        lies_in = f" within {', '.join(coded.jurisdictions)}" if coded.jurisdictions else ""
        raise InputError(f"{short(coded.object)} is kept as {coded.k}+{coded.m} fragments{lies_in}: remove that first")


def _part(coded: controller_pb2.CodedObject, index: int) -> objects_pb2.Part:
    """What a fragment's terms say of the whole."""
    return objects_pb2.Part(
        whole=coded.object, whole_bytes=coded.size_bytes, k=coded.k, m=coded.m, index=index,
        piece_bytes=coded.piece_bytes,
        fragments=[objects_pb2.Part.Fragment(object=each.object, node=each.node) for each in coded.fragments],
    )  # fmt: skip


def _has_succeeded(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
