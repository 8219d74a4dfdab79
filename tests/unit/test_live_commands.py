"""The commands for a run that is up, through the command line and a real socket, on a fabric that is a notebook."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from controller.api.client import ControllerClient
from controller.api.server import ControllerService
from controller.cli import live_commands
from controller.cli.main import skyrack
from controller.emulation import Emulation, Phase
from controller.errors import SkyrackError
from controller.record.read import read_record
from protos.skyrack.v1 import controller_pb2_grpc
from tests.unit.test_emulation import START_S, STEP_S, emulation_of, events, ten_steps

ISL = ("ring-p00s00", "ring-p00s01")
UP_S = 10.0


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run of ten steps that is up, its sky as slow as the clock; the folder of its record."""
    loop, socket = asyncio.new_event_loop(), tmp_path / "api.sock"
    up, emulations, failures = threading.Event(), list[Emulation](), list[BaseException]()

    async def live() -> None:
        with emulation_of(tmp_path, ten_steps(), time_scale=1.0, lit=True) as (emulation, _):
            server = grpc.aio.server()
            controller_pb2_grpc.add_ControllerServicer_to_server(ControllerService(emulation, tmp_path), server)
            server.add_insecure_port(f"unix:{socket}")
            await server.start()
            emulations.append(emulation)
            running = asyncio.create_task(emulation.run(hold=True))
            await asyncio.sleep(0)  # the run begins
            assert emulation.phase is Phase.RUNNING
            up.set()
            await running
            await server.stop(0)

    def run() -> None:
        try:
            loop.run_until_complete(live())
        except BaseException as error:  # noqa: BLE001  (raised again below)
            failures.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert up.wait(UP_S), failures
        monkeypatch.setattr(live_commands, "client_of", lambda run_id: ControllerClient(socket))
        yield tmp_path
    finally:
        loop.call_soon_threadsafe(emulations[0].request_stop)
        thread.join(UP_S)
        assert not thread.is_alive()
        assert not failures


def called(*arguments: str) -> Result:
    """A command that is done."""
    done = CliRunner().invoke(skyrack, arguments)
    assert done.exit_code == 0, done.exception
    return done


def document(*arguments: str) -> Any:
    """What a command answers as JSON."""
    return json.loads(called(*arguments, "--json").stdout)


def refused(*arguments: str) -> SkyrackError:
    """The error of a command."""
    done = CliRunner().invoke(skyrack, arguments)
    assert isinstance(done.exception, SkyrackError), done.output
    return done.exception


def test_the_skys_clock_is_turned(record: Path) -> None:
    """Paused it stands; it goes on step by step, forth and back to a moment; resumed it goes on. Each is recorded."""
    paused = document("pause")
    assert paused["paused"]
    assert document("pause")["t_s"] == paused["t_s"]
    assert document("step")["t_s"] == START_S + STEP_S
    assert document("step", "3")["step"] == 4
    assert document("step", "100")["step"] == 9
    sought = document("seek", str(START_S + 25.0))
    assert (sought["t_s"], sought["step"], sought["paused"]) == (START_S + 25.0, 2, True)
    resumed = document("resume")
    assert not resumed["paused"]
    assert START_S + 25.0 <= resumed["t_s"] < START_S + 30.0
    back = document("seek", str(START_S))
    assert (back["step"], back["paused"]) == (0, False)
    assert "going on" in called("seek", str(START_S)).stdout
    kinds = [event.kind for event in read_record(record).events if event.kind.startswith("sky-")]
    assert kinds == ["sky-paused", *["sky-sought"] * 4, "sky-resumed", "sky-sought", "sky-sought"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("step",), "not paused"),
        (("seek", "0"), "this sky has t = 7200 s to 7290 s"),
        (("seek", "nan"), "this sky has"),
        (("link", "show", "quito", "nowhere"), "no node is called 'nowhere'"),
        (("link", "set", "quito", "nairobi", "--down"), "no link joins"),
        (("link", "set", *ISL), "an override needs"),
        (("link", "set", *ISL, "--rate-bps", "1"), "rate 1 bit/s: must be from"),
        (("link", "set", *ISL, "--delay-ms", "nan"), "--delay-ms nan: must be"),
        (("fault", "inject", "blackout", "nowhere"), "no node is called 'nowhere'"),
        (("fault", "inject", "blackout", "quito", "--rate-ratio", "0.5"), "rate_ratio is of degrade"),
        (("fault", "inject", "degrade", "quito", "--mode", "silent", "--loss", "0.1"), "mode is of blackout"),
        (("fault", "inject", "blackout", "quito", "--duration", "-1"), "fault: duration_s = -1.0: must be more than 0"),
        (("fault", "inject", "blackout"), "exactly one of target and region"),
        (("fault", "clear", "f7"), "no fault has the id or the target 'f7'"),
        (("probe", "quito", "quito"), "between two nodes"),
        (("capture", "quito~ring-p00s99", "--out", "x.pcapng"), "ring-p00s99"),
    ],
)
def test_wrong_input_is_named_and_has_status_2(
    record: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    """The run goes on, and what is wrong is told as what the user gave."""

    class Place:
        run_id = "abcdefgh"

    monkeypatch.setattr(live_commands, "the_run", lambda run_id: Place())
    error = refused(*arguments)
    assert message in str(error)
    assert error.exit_status == 2
    assert document("fault", "list") == {"faults": []}


def test_a_link_is_set_and_cleared(record: Path) -> None:
    """What is set is commanded and in force at once, both ways; cleared, geometry has its link again."""
    document("pause")
    before = document("link", "show", *ISL)
    assert before["override"] is None
    assert before["geometry"] == before["commanded"] == before["read_back_a_to_b"]
    view = document("link", "set", *reversed(ISL), "--delay-ms", "70.5", "--loss", "0.25")
    assert (view["a"], view["b"], view["kind"]) == (*ISL, "isl")
    wanted = {**before["geometry"], "delay_us": 70_500, "loss_ratio": 0.25}
    assert view["commanded"] == view["read_back_a_to_b"] == view["read_back_b_to_a"] == wanted
    assert view["geometry"] == before["geometry"]
    assert view["override"] == {
        "a": ISL[0], "b": ISL[1], "delay_us": 70_500, "rate_bps": None, "loss_ratio": 0.25, "up": None,
    }  # fmt: skip
    document("step")
    assert document("link", "show", *ISL)["commanded"]["delay_us"] == 70_500, "it holds in later steps"
    down = document("link", "set", *ISL, "--down")
    assert down["geometry"]["up"]
    assert [down[key]["up"] for key in ("commanded", "read_back_a_to_b", "read_back_b_to_a")] == [False] * 3
    assert "down" in called("link", "show", *ISL).stdout
    cleared = document("link", "clear", *ISL)
    assert cleared["was_set"]
    assert cleared["link"]["commanded"] == cleared["link"]["geometry"] == cleared["link"]["read_back_b_to_a"]
    assert not document("link", "clear", *ISL)["was_set"]
    kinds = [
        event.kind for event in read_record(record).events if event.kind.startswith("link-") and "a" in event.fields
    ]
    assert [kind for kind in kinds if kind in ("link-set", "link-cleared")] == ["link-set", "link-set", "link-cleared"]


def test_a_fault_is_injected_listed_and_cleared(record: Path) -> None:
    """It is in force at once and until it is cleared, by its id or its target; what it did is in the record."""
    document("pause")
    injected = document("fault", "inject", "blackout", "~".join(ISL), "--mode", "reject")
    assert not document("link", "show", *ISL)["commanded"]["up"]
    (listed,) = document("fault", "list")["faults"]
    assert listed == {
        "id": injected["id"], "kind": "blackout", "target": "~".join(ISL), "mode": "reject", "at_s": injected["at_s"],
        "until_s": None, "active": True, "origin": "injected",
    }  # fmt: skip
    assert document("fault", "clear", "~".join(ISL)) == {"cleared": 1}
    assert document("link", "show", *ISL)["commanded"]["up"]
    slow = document("fault", "inject", "degrade", ISL[0], "--extra-delay-ms", "20", "--duration", "15")
    view = document("link", "show", *ISL)
    assert view["commanded"]["delay_us"] == view["geometry"]["delay_us"] + 20_000
    document("step", "2")
    assert document("fault", "list") == {"faults": []}, "its time is over"
    assert refused("fault", "clear", slow["id"]).exit_status == 2
    region = document("fault", "inject", "blackout", "--region", "0", "-78.5", "1000000")
    assert "region:0,-78.5,1e+06" in called("fault", "list").stdout.replace("1000000", "1e+06")
    assert document("fault", "clear", region["id"]) == {"cleared": 1}
    written = read_record(record)
    assert [event.fields["id"] for event in events(written, "fault-injected")] == [
        injected["id"], slow["id"], region["id"],
    ]  # fmt: skip
    assert len(events(written, "fault-on")) == len(events(written, "fault-off")) == 3
    assert all(window.start_s <= window.end_s for window in written.faults())
