"""The store against a model of it: whatever is done in whatever order, and whenever the agent is killed."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from node_agent.errors import DataLoss, Exhausted, FailedPrecondition, InvalidArgument, NotFound, Refusal
from node_agent.journal import Journal
from node_agent.objects.catalog import PUT, for_job
from node_agent.objects.partial import Partial
from node_agent.objects.sealing import SEGMENT_BYTES, sealed_bytes
from node_agent.objects.store import ObjectStore
from node_agent.objects.terms import Terms
from tests.searches import examples

T = TypeVar("T")

QUOTA_BYTES = 600_000
# Around the segments of an encrypted file; one does not fit at all, and not all fit together.
CONTENTS = [
    bytes([65 + number]) * size for number, size in enumerate((0, 1, 65_535, 65_536, 150_000, 400_000, 700_000))
]
JOBS = ("one", "two")


def name_of(content: bytes) -> str:
    """sha256:…"""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Model:
    """What must be true of one object."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.name = name_of(content)
        self.kept_bytes: int | None = None  # None: nothing is known of it
        self.whole = False
        self.pinned = False
        self.reasons: set[str] = set()

    def gone(self) -> None:
        """Nothing of it is left."""
        self.__init__(self.content)  # type: ignore[misc]


class StoreMachine(RuleBasedStateMachine):
    """Puts that break, are resumed and end; jobs' outputs; deletions, releases; and the agent's sudden end."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="skyrack-test-"))
        self.loop = asyncio.new_event_loop()
        self.models = {number: Model(content) for number, content in enumerate(CONTENTS)}
        self.senders: dict[int, tuple[AsyncExitStack, Partial]] = {}

    def run(self, steps: Coroutine[Any, Any, T]) -> T:
        """Do it now."""
        return self.loop.run_until_complete(asyncio.wait_for(steps, 20))

    @initialize(encrypt=st.booleans())
    def begin(self, encrypt: bool) -> None:
        """An empty store of either kind."""
        self.encrypt = encrypt
        self.start()

    def start(self) -> None:
        """An agent over what lies in the folder."""
        self.journal = Journal(self.folder / "journal.db")
        self.store = ObjectStore(self.folder / "objects", QUOTA_BYTES, self.journal, encrypt=self.encrypt)
        self.run(self.store.recover())

    @rule(which=st.sampled_from(range(len(CONTENTS))), pinned=st.booleans(), why=st.sampled_from([PUT, "job one"]))
    def begin_to_send(self, which: int, pinned: bool, why: str) -> None:
        """A sender comes; of one object, one at a time."""
        model = self.models[which]
        if which in self.senders:
            return
        stack = AsyncExitStack()
        receiving = self.store.receiving(model.name, len(model.content), Terms(pinned=pinned), why)
        try:
            part = self.run(stack.enter_async_context(receiving))
        except Exhausted:
            assert not model.whole
            return
        model.pinned |= pinned
        model.reasons |= {why}
        if part is None:
            assert model.whole
            self.run(stack.aclose())
            return
        assert not model.whole
        assert part.committed_bytes == (model.kept_bytes or 0)
        model.kept_bytes = part.committed_bytes
        self.senders[which] = (stack, part)

    def one_of_senders(self, pick: int) -> int:
        """Which object somebody sends."""
        return sorted(self.senders)[pick % len(self.senders)]

    @precondition(lambda self: self.senders)
    @rule(
        pick=st.integers(0, 99),
        chunk_bytes=st.sampled_from([1, 1000, 65_536, 100_000, 400_000]),
        wrong=st.integers(0, 9),
    )
    def send(self, pick: int, chunk_bytes: int, wrong: int) -> None:
        """Some of it arrives, now and then a byte wrong."""
        which = self.one_of_senders(pick)
        _, part = self.senders[which]
        model = self.models[which]
        start = part.committed_bytes
        chunk = bytearray(model.content[start : start + chunk_bytes])
        if chunk and not wrong:
            chunk[0] ^= 1

        async def take() -> None:
            async with part.taking(start) as intake:
                await intake.take(bytes(chunk))
                await intake.drained()

        self.run(take())
        assert part.committed_bytes == start + len(chunk)
        model.kept_bytes = part.committed_bytes
        if chunk and not wrong:
            model.reasons |= {"wrong"}

    @precondition(lambda self: self.senders)
    @rule(pick=st.integers(0, 99))
    def end(self, pick: int) -> None:
        """The sender says that this was all of it."""
        which = self.one_of_senders(pick)
        stack, part = self.senders.pop(which)
        model = self.models[which]
        try:
            self.run(self.store.finish(part, model.name))
        except InvalidArgument:
            assert part.committed_bytes < len(model.content)
            self.run(stack.aclose())
            self.left(model)
        except DataLoss:
            assert "wrong" in model.reasons
            self.run(stack.aclose())
            model.gone()
        else:
            assert "wrong" not in model.reasons
            self.run(stack.aclose())
            model.whole, model.kept_bytes = True, len(model.content)

    @precondition(lambda self: self.senders)
    @rule(pick=st.integers(0, 99))
    def break_off(self, pick: int) -> None:
        """The sender vanishes."""
        which = self.one_of_senders(pick)
        stack, _ = self.senders.pop(which)
        self.run(stack.aclose())
        self.left(self.models[which])

    def left(self, model: Model) -> None:
        """Nobody sends any more: a header alone leaves nothing."""
        if not model.kept_bytes:
            model.gone()

    @rule(which=st.sampled_from(range(len(CONTENTS))), job=st.sampled_from(JOBS))
    def adopt(self, which: int, job: str) -> None:
        """A job has made it."""
        model = self.models[which]
        if which in self.senders or "wrong" in model.reasons:
            return
        path = self.folder / "output"
        path.write_bytes(model.content)
        try:
            with path.open("rb") as output:
                name, size_bytes = self.run(self.store.adopt_fd(output.fileno(), "output", why=for_job(job)))
        except Exhausted:
            assert not model.whole
            return
        assert (name, size_bytes) == (model.name, len(model.content))
        model.whole, model.kept_bytes = True, len(model.content)
        model.reasons |= {for_job(job)}

    @rule(which=st.sampled_from(range(len(CONTENTS))), pinned=st.booleans())
    def set_terms(self, which: int, pinned: bool) -> None:
        """Pin or unpin it."""
        model = self.models[which]
        try:
            self.run(self.store.set_terms(model.name, Terms(pinned=pinned)))
        except NotFound:
            assert not model.whole
        else:
            assert model.whole
            model.pinned = pinned

    @rule(which=st.sampled_from(range(len(CONTENTS))))
    def delete(self, which: int) -> None:
        """Remove it."""
        model = self.models[which]
        try:
            was_here = self.run(self.store.delete(model.name))
        except FailedPrecondition:
            assert model.pinned or which in self.senders
        else:
            assert was_here == (model.kept_bytes is not None)
            model.gone()

    @rule(job=st.sampled_from(JOBS))
    def release(self, job: str) -> None:
        """A job is done with."""
        self.run(self.store.release(job))
        for which, model in self.models.items():
            model.reasons.discard(for_job(job))
            if not (model.reasons - {"wrong"}) and not model.pinned and which not in self.senders:
                model.gone()

    @rule()
    def kill(self) -> None:
        """kill -9: a new agent over what lay on the disk at that moment; what the old one did later is not there."""
        life = self.folder.parent / f"{self.folder.name}'"
        shutil.copytree(self.folder, life)
        for stack, _ in self.senders.values():
            self.run(stack.aclose())
        self.journal.close()
        shutil.rmtree(self.folder)
        self.folder = life
        self.start()
        for which in self.senders:
            model = self.models[which]
            at_most_bytes = model.kept_bytes or 0
            # The last segment of an encrypted part is written when it is full, or its sender leaves.
            lost_bytes = at_most_bytes % SEGMENT_BYTES if self.encrypt else 0
            model.kept_bytes = at_most_bytes - lost_bytes
        self.senders.clear()

    @invariant()
    def it_is_as_it_must_be(self) -> None:
        """What is whole is right and readable, what is not is not served, and the room that is taken is that of it."""
        if not hasattr(self, "store"):
            return
        for which, model in self.models.items():
            row = self.store.row(model.name)
            assert (row is None) == (model.kept_bytes is None)
            assert self.store.size_bytes(model.name) == (len(model.content) if model.whole else None)
            if row is not None:
                assert row.terms.pinned == model.pinned
                assert row.reasons == frozenset(model.reasons - {"wrong"})
            if model.whole:
                with self.store.reading(model.name) as file:
                    assert file.read(0, len(model.content)) == model.content
            elif which not in self.senders:
                most_bytes = max(len(model.content) - 1, 0)
                assert self.store.committed_bytes(model.name) == min(model.kept_bytes or 0, most_bytes)
                with pytest.raises(Refusal), self.store.reading(model.name):
                    pass
        assert self.store.used_bytes == self.taken_bytes() <= QUOTA_BYTES

    def taken_bytes(self) -> int:
        """What the files take, or will when those that are being sent are whole."""
        sending = {f"{self.models[which].name.removeprefix('sha256:')}.part": which for which in self.senders}
        file_bytes = sealed_bytes if self.encrypt else int
        return sum(
            file_bytes(len(self.models[sending[path.name]].content)) if path.name in sending else path.stat().st_size
            for path in (self.folder / "objects").iterdir()
            if path.is_file()
        )

    def teardown(self) -> None:
        """Leave nothing."""
        for stack, _ in self.senders.values():
            with suppress(Refusal):
                self.run(stack.aclose())
        if hasattr(self, "journal"):
            self.journal.close()
        self.loop.close()
        shutil.rmtree(self.folder)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)
