"""An agent that was taken over, and says anything to its node's first process: `tests.executing` runs it as a scenario.

Paths and programs are of a few: a helper does with a path what its user may, and this is not about that.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from node_agent.processes.init import MESSAGE_BYTES
from node_agent.processes.proctree import Tree
from node_agent.processes.program import Task
from tests.executing import AGENT_USER, FIRST_JOB_USER, Answer, Node, main, scenario, shell, told
from tests.fuzz.generator import Generator
from tests.fuzz.world import KNOWN

MESSAGES: Final = 3_000
ASK_EVERY: Final = 100
_MARK: Final = "SKYRACK_OUTPUT_DIR=/nowhere"
_PATHS: Final = ("/nowhere", "", "relative", "/dev/null", "/proc/self/status", "a\0b", "\ud800")
_VALUES: Final[tuple[Any, ...]] = (
    None, True, 0, 1, -1, 9, 19, 2**31, 2**70, 1.5, float("nan"), "", "x", "\0", "\ud800", [], {}, [1], "x" * 1_000,
    AGENT_USER, FIRST_JOB_USER, FIRST_JOB_USER + 1, str(FIRST_JOB_USER), _MARK, "=",
)  # fmt: skip
_DEEDS: Final = ("start", "signal", "measure", "open up", "open", "clear", "make key", "take certificate", "nothing", 7)


@scenario
async def compromised(node: Node) -> Answer:
    """Say so many things; every now and then something proper, which must be answered; at the end, run a job."""
    draw, asked = random.Random(int(os.environ.get("SKYRACK_FUZZ_SEED", "1"))), 0
    tree = Tree(FIRST_JOB_USER + 9, _MARK)
    with ExitStack() as kept:
        deaf = kept.enter_context(_pair())[1]  # nobody reads what is told here
        for number in range(MESSAGES):
            with _descriptors(draw, deaf) as fds:
                await _send(node.channel, _message(draw), fds)
            if number % ASK_EVERY == 0:
                await node.first.signal(tree, signal.SIGKILL)
                asked += 1
    refused = await _refused_root(node)
    ended = await node.run(shell("afterwards", "echo well"))
    return {"asked": asked, "ended": told(ended), "refused": refused, "restarts": node.restarts}


async def _refused_root(node: Node) -> str:
    """What is answered to who wants a program run that is no job's user's: it would be root's."""
    task = Task(["/bin/true"], {}, "/", 1, 0, 1, network=False)
    try:
        await node.first.start(Tree(None, _MARK), task, 2, 2)
    except OSError as error:
        return str(error)
    return ""


def _message(draw: random.Random) -> bytes:
    match draw.randrange(8):
        case 0:
            return Generator(draw, KNOWN).garbage()[:MESSAGE_BYTES] or b"x"
        case 1:
            return draw.choice((b"[" * 60_000, b'{"a":' * 10_000, b"[]", b"null", b"3", b'"x"', b"{}", b"\xff", b"NaN"))
    request: dict[str, Any] = {"do": draw.choice(_DEEDS), "user": FIRST_JOB_USER + draw.randrange(8), "mark": _MARK}
    request |= {"path": draw.choice(_PATHS), "name": "x", "number": draw.choice((9, 18, 19)), "role": "satellite"}
    request |= {"certificate_pem": "x", "authority_pem": "x"}
    if request["do"] in ("make key", "take certificate"):
        request["user"] = None
    for _ in range(draw.choice((0, 0, 1, 1, 2, 5))):
        name = draw.choice([*request])
        if draw.random() < 0.3:
            del request[name]
        elif name != "path":
            request[name] = draw.choice(_VALUES)
    message = json.dumps(request).encode()
    return Generator(draw, KNOWN).mutated(message)[:MESSAGE_BYTES] or b"x" if draw.random() < 0.1 else message


@contextmanager
def _descriptors(draw: random.Random, deaf: socket.socket) -> Iterator[list[int]]:
    """Where an answer would go, or would not, and what comes along."""
    with ExitStack() as kept, _pair() as (_, ours):
        task = Task(["/bin/true"], {}, "/", 1, 0, 1, network=False).to_file()
        nothing = os.open(os.devnull, os.O_RDWR)
        datagrams = kept.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        stream = kept.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            replies = [ours.fileno()] * 6 + [deaf.fileno(), nothing, datagrams.fileno(), stream.fileno(), task]
            others: tuple[list[int], ...] = (
                [],
                [],
                [task, nothing, nothing],
                [nothing] * 3,
                [task],
                [task, nothing] * 4,
            )
            yield draw.choice(([], [draw.choice(replies), *draw.choice(others)], [draw.choice(replies)]))
        finally:
            os.close(task)
            os.close(nothing)


@contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


async def _send(channel: socket.socket, message: bytes, fds: list[int]) -> None:
    while True:
        with suppress(BlockingIOError):
            socket.send_fds(channel, [message], fds)
            return
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    sys.exit(main())
