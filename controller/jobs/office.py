"""All that the controller does about a run's jobs and objects, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from controller.errors import SkyrackError
from controller.jobs.coded import CodedDesk
from controller.jobs.desk import GatewayJob, JobDesk
from controller.jobs.journal import Journal
from controller.jobs.orders import Orders
from controller.jobs.shelf import Shelf
from controller.jobs.sight import Run, Sight
from controller.timeline import Role
from protos.skyrack.v1 import controller_pb2

AT_ONCE = 64


@dataclass(frozen=True)
class Office:
    """One run's desks. Of one event loop."""

    desk: JobDesk
    coded: CodedDesk
    shelf: Shelf
    journal: Journal
    run: Run

    @classmethod
    async def open(cls, run: Run, journal_file: Path, on_change: Callable[[GatewayJob], None]) -> Self:
        """Open the desks of a run whose agents answer, and go on with what its journal has."""
        journal = await asyncio.to_thread(Journal, journal_file)
        names = [node.name for node in run.schedule.timeline.nodes if node.role is not Role.SATELLITE]
        grounds = {name: run.agents[name] for name in names}
        sight = Sight(run)
        orders = Orders(sight, journal, grounds)
        desk = JobDesk(grounds, journal, orders, on_change)
        await desk.take_up()
        coded = CodedDesk(grounds, desk, journal, orders, sight, journal_file.parent)
        await coded.take_up()
        return cls(desk, coded, Shelf(grounds, desk, coded, journal, orders, sight), journal, run)

    async def audit(self) -> list[controller_pb2.NodeAuditEvent]:
        """What was denied, damaged or repaired so far, oldest first; of a node that does not answer, just that."""
        own = await asyncio.to_thread(self.journal.audit)
        events = [controller_pb2.NodeAuditEvent(node="controller", event=event) for event in own]
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(name: str) -> None:
            async with gate:
                try:
                    told = await self.run.agents[name].audit()
                except SkyrackError as error:
                    mute = controller_pb2.NodeAuditEvent(node=name)
                    mute.event.kind, mute.event.reason = "mute", str(error)
                    events.append(mute)
                else:
                    events.extend(controller_pb2.NodeAuditEvent(node=name, event=event) for event in told)

        await asyncio.gather(*(ask(name) for name in self.run.agents))
        return sorted(events, key=lambda each: (each.event.at_unix_ns, each.node, each.event.number))

    async def close(self) -> None:
        """Stop following jobs."""
        await self.coded.close()
        await self.desk.close()
        await asyncio.to_thread(self.journal.close)
