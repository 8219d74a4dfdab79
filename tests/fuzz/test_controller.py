"""A run's command socket, told anything by whoever may open it; the run is one on a fabric that is a notebook."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from controller.api.live import MAX_DETAILS_BYTES, fitting
from controller.api.server import ControllerService
from controller.emulation import Emulation, Phase
from protos.skyrack.v1 import controller_pb2, controller_pb2_grpc
from tests.fuzz.caller import OWN_WORDS
from tests.fuzz.generator import Generator, Known
from tests.unit.test_emulation import emulation_of, ten_steps

SEED, MESSAGES = 5, 2_000
CALL_S: Final = 20.0
PATIENCE_S: Final = 0.1
SERVICE: Final = controller_pb2.DESCRIPTOR.services_by_name["Controller"]
# A run that is stopped answers nothing more; of its status, the notebook has no probes to tell.
METHODS: Final = [method for method in SERVICE.methods if method.name not in ("Stop", "GetStatus")]
KNOWN: Final = Known(("job-1",), ("sha256:" + "0" * 64,), ("ring-p00s00", "ring-p00s01", "ring-p00s02"))
REFUSALS: Final = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND}


@asynccontextmanager
async def run_that_is_up(folder: Path) -> AsyncIterator[tuple[Emulation, grpc.aio.Channel]]:
    """Its emulation, and a way to its socket."""
    with emulation_of(folder, ten_steps(), time_scale=1.0, lit=True) as (emulation, _):
        server = grpc.aio.server()
        controller_pb2_grpc.add_ControllerServicer_to_server(ControllerService(emulation, folder), server)
        server.add_insecure_port(f"unix:{folder}/api.sock")
        await server.start()
        running = asyncio.create_task(emulation.run(hold=True))
        async with grpc.aio.insecure_channel(f"unix:{folder}/api.sock") as channel:
            yield emulation, channel
        emulation.request_stop()
        await running
        await server.stop(0)


async def answer(channel: Any, method: Any, messages: list[bytes]) -> tuple[grpc.StatusCode | None, str]:
    """How a call ends, and in which words; no code where it goes on."""

    async def requests() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    call = channel.stream_stream(f"/{SERVICE.full_name}/{method.name}")(requests(), timeout=CALL_S)
    try:
        while True:
            async with asyncio.timeout(PATIENCE_S if method.server_streaming else None):
                if await call.read() is grpc.aio.EOF:
                    break
        return await call.code(), await call.details()
    except TimeoutError:
        return None, ""
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    finally:
        call.cancel()


async def test_no_message_harms_a_run(tmp_path: Path) -> None:
    """Whatever fields a command has, it is done or refused in words; the run goes on, and its sky can be asked for."""
    draw, wrong, codes = random.Random(SEED), list[str](), Counter[tuple[str, str]]()
    async with run_that_is_up(tmp_path) as (emulation, channel):
        for number in range(MESSAGES):
            method = draw.choice(METHODS)
            generator = Generator(draw, KNOWN)
            count = draw.choice((1, 2, 4)) if method.client_streaming else 1
            said = [generator.filled(method.input_type) for _ in range(count)]
            code, words = await answer(channel, method, [message.SerializeToString() for message in said])
            codes[method.name, code.name if code else "goes on"] += 1
            if code not in (None, grpc.StatusCode.OK) and words != OWN_WORDS and (code not in REFUSALS or not words):
                wrong.append(f"{number} {method.name}: {code}, {words[:300]!r}, of {str(said)[:300]!r}")
        assert emulation.phase in (Phase.RUNNING, Phase.HOLDING), wrong
        clock = await controller_pb2_grpc.ControllerStub(channel).Pause(controller_pb2.PauseRequest(), timeout=CALL_S)
        assert clock.paused
    assert not wrong, "\n".join(wrong[:20])
    assert {name for name, _ in codes} == {method.name for method in METHODS}


def test_long_words_are_cut_to_what_a_status_holds() -> None:
    """Of what was said, as much is told again as gets through; what fits is told as it is."""
    assert fitting("no node is called 'x'") == "no node is called 'x'"
    assert fitting("x" * 10_000) == f"{'x' * MAX_DETAILS_BYTES} …"
    assert fitting("\u26a1" * 10_000) == f"{chr(0x26A1) * (MAX_DETAILS_BYTES // 9)} …"
