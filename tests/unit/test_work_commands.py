"""The commands for jobs and objects: what they ask of a run over a real socket, and what they print of its answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from controller.api.client import ControllerClient
from controller.cli import job_commands, object_commands, security_commands
from controller.cli.main import skyrack
from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import controller_pb2, controller_pb2_grpc, jobs_pb2, node_pb2, objects_pb2

DATA = b"some bytes"
NAME = "sha256:71d5f9c63c0b56a3b7ac0ac2a4ec3c2a1f9a7d6a4c7e4a1d1a7a1d8cf3d1a7a1"
CODED = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
TERMS = objects_pb2.ObjectTerms(jurisdictions=["CN"], transit=True, holders=["beijing", "sat-1"])


def at(job_id: str, state: jobs_pb2.JobState.ValueType, **more: Any) -> controller_pb2.JobAtGateway:
    """A job at the gateway."""
    job = jobs_pb2.Job(spec=jobs_pb2.JobSpec(id=job_id, on_node="sat-1"), state=state, reason="so", **more)
    return controller_pb2.JobAtGateway(via="beijing", job=job, policy="spread", cause="")


def fragments(*states: str) -> controller_pb2.CodedObject:
    """An object of one fragment and one more, in these states."""
    may_lose = states.count("kept") - 1
    coded = controller_pb2.CodedObject(object=CODED, size_bytes=10, k=1, m=1, fragment_bytes=124, may_lose=may_lose)
    for number, state in enumerate(states, 1):
        coded.fragments.add(object=f"sha256:{number}", node=f"sat-{number}", state=state)
    return coded


class Run(controller_pb2_grpc.ControllerServicer):
    """A run that writes down what it is asked, and answers always the same."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.damaged = [NAME]
        self.listed = threading.Event()

    def Put(self, request_iterator: Any, context: Any) -> objects_pb2.ObjectInfo:  # noqa: N802
        """Take it."""
        parts = list(request_iterator)
        self.asked.append(parts[1].put.header)
        size_bytes = parts[1].put.header.size_bytes
        return objects_pb2.ObjectInfo(object=parts[1].put.header.object, size_bytes=size_bytes)

    def Keep(self, request: Any, context: Any) -> controller_pb2.KeepResponse:  # noqa: N802
        """One job a node."""
        self.asked.append(request)
        return controller_pb2.KeepResponse(jobs=[at("keep-0", jobs_pb2.JOB_STATE_IN_TRANSIT)])

    def Submit(self, request: Any, context: Any) -> controller_pb2.JobAtGateway:  # noqa: N802
        """Take it."""
        self.asked.append(request)
        if request.policy == "none-fits":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no node can take it")
        return at(request.spec.id, jobs_pb2.JOB_STATE_WAITING_CONTACT, custodian="sat-7")

    def WatchJob(self, request: Any, context: Any) -> Iterator[controller_pb2.JobAtGateway]:  # noqa: N802
        """To its end."""
        final = jobs_pb2.JOB_STATE_FAILED if request.id == "bad" else jobs_pb2.JOB_STATE_SUCCEEDED
        yield at(request.id, jobs_pb2.JOB_STATE_RUNNING)
        yield at(request.id, final, exit_status=0)

    def ListJobs(self, request: Any, context: Any) -> controller_pb2.ListAllJobsResponse:  # noqa: N802
        """One on its way; and others, that bring an object's fragments."""
        jobs = [at("j1", jobs_pb2.JOB_STATE_IN_TRANSIT, custodian="sat-7")]
        for number, state in enumerate((jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_WAITING_CONTACT), 1):
            fetch = at(f"fetch-{number}", state)
            fetch.job.spec.inputs.add(object=f"sha256:{number}", at_node=f"sat-{number}")
            jobs.append(fetch)
        self.listed.set()
        return controller_pb2.ListAllJobsResponse(jobs=jobs)

    def Get(self, request: Any, context: Any) -> Iterator[objects_pb2.GetResponse]:  # noqa: N802
        """As soon as somebody has asked for jobs."""
        assert self.listed.wait(10)
        yield objects_pb2.GetResponse(chunk=DATA)

    def SuspendJob(self, request: Any, context: Any) -> controller_pb2.JobAtGateway:  # noqa: N802
        """It stands."""
        return at(request.id, jobs_pb2.JOB_STATE_SUSPENDED)

    def ResumeJob(self, request: Any, context: Any) -> controller_pb2.JobAtGateway:  # noqa: N802
        """It goes on."""
        return at(request.id, jobs_pb2.JOB_STATE_RUNNING)

    def ReadLog(self, request: Any, context: Any) -> Iterator[jobs_pb2.LogChunk]:  # noqa: N802
        """Two pieces."""
        self.asked.append(request)
        yield jobs_pb2.LogChunk(data=b"one\n")
        yield jobs_pb2.LogChunk(data=b"two\n", offset_bytes=4)

    def ExplainJob(self, request: Any, context: Any) -> controller_pb2.Explanation:  # noqa: N802
        """One node is chosen, one refused."""
        told = controller_pb2.Explanation(policy="earliest-result", chosen="sat-1", at_s=12.0)
        told.job.CopyFrom(at(request.id, jobs_pb2.JOB_STATE_RUNNING))
        told.verdicts.add(node="sat-1", feasible=True, reason="soon", score=14.5, result_at_s=14.5)
        told.verdicts.add(node="sat-2", reason="lies in US, and the job is for CN alone")
        return told

    def ListObjects(self, request: Any, context: Any) -> controller_pb2.ListObjectsAtResponse:  # noqa: N802
        """One."""
        self.asked.append(request)
        info = objects_pb2.ObjectInfo(object=NAME, size_bytes=10, committed_bytes=10, terms=TERMS)
        coded = [] if request.via else [fragments("kept", "kept")]
        objects = [controller_pb2.ObjectAtNode(node="beijing", info=info)]
        return controller_pb2.ListObjectsAtResponse(objects=objects, coded=coded)

    def PutCoded(self, request_iterator: Any, context: Any) -> Iterator[controller_pb2.CodedObject]:  # noqa: N802
        """Two fragments on their way, then kept."""
        parts = list(request_iterator)
        self.asked.append(parts[0].header)
        assert b"".join(part.chunk for part in parts[1:]) == DATA
        if parts[0].header.via == "full":
            context.abort(grpc.StatusCode.INTERNAL, "fragment 1 is not kept at sat-2")
        yield fragments("kept", "on its way")
        yield fragments("kept", "kept")

    def StatObject(self, request: Any, context: Any) -> controller_pb2.StatObjectResponse:  # noqa: N802
        """A coded one, and another one."""
        coded = fragments("kept", "away") if request.object == CODED else None
        at_nodes = [] if coded else ["beijing"]
        return controller_pb2.StatObjectResponse(object=request.object, size_bytes=10, at_nodes=at_nodes, coded=coded)

    def SetTerms(self, request: Any, context: Any) -> objects_pb2.ObjectInfo:  # noqa: N802
        """As asked."""
        self.asked.append(request)
        return objects_pb2.ObjectInfo(object=request.set.object, terms=request.set.terms)

    def DeleteObject(self, request: Any, context: Any) -> controller_pb2.DropObjectResponse:  # noqa: N802
        """Gone, but for one fragment."""
        waits_for = ["sat-3"] if request.object == CODED else []
        return controller_pb2.DropObjectResponse(was_here=True, waits_for=waits_for)

    def Scrub(self, request: Any, context: Any) -> objects_pb2.ScrubReport:  # noqa: N802
        """One damaged."""
        return objects_pb2.ScrubReport(objects=3, bytes=30, damaged=[NAME], repaired=[*{NAME} - {*self.damaged}])

    def Audit(self, request: Any, context: Any) -> controller_pb2.RunAuditResponse:  # noqa: N802
        """One event."""
        event = node_pb2.AuditEvent(
            at_unix_ns=1_500_000_000, kind="denied", who="emulator", what="submit", of="j1", reason="lies in US"
        )
        return controller_pb2.RunAuditResponse(events=[controller_pb2.NodeAuditEvent(node="controller", event=event)])

    def RotateCertificates(self, request: Any, context: Any) -> controller_pb2.RotateCertificatesResponse:  # noqa: N802
        """All that are named."""
        return controller_pb2.RotateCertificatesResponse(rotated=len(request.nodes))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run that is up, on a socket."""
    service = Run()  # type: ignore[abstract]  # of what else a run answers, these commands ask nothing
    server = grpc.server(ThreadPoolExecutor(4))
    controller_pb2_grpc.add_ControllerServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{tmp_path}/api.sock")
    server.start()
    for module in (job_commands, object_commands, security_commands):
        monkeypatch.setattr(module, "client_of", lambda run_id: ControllerClient(tmp_path / "api.sock"))
    yield service
    server.stop(None).wait(10)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file."""
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    return path


def called(*arguments: object) -> Result:
    """A command that is done."""
    done = CliRunner().invoke(skyrack, [str(each) for each in arguments])
    assert done.exit_code == 0, done.exception
    return done


def document(*arguments: object) -> Any:
    """What a command answers as JSON."""
    return json.loads(called(*arguments, "--json").stdout)


def refused(*arguments: object) -> SkyrackError:
    """The error of a command."""
    done = CliRunner().invoke(skyrack, [str(each) for each in arguments])
    assert isinstance(done.exception, SkyrackError), done.output
    return done.exception


def test_submit_says_all_that_a_job_may_have(run: Run, data: Path) -> None:
    """Every option is in the request; the answer has who chose the node, and who has custody of it."""
    told = document(
        "submit", "--wasm", data, "--via", "beijing", "--pin-to", "sat-1", "--pin-to", "sat-2",
        "--input", f"{NAME}@sat-3",
        "--arg", "a", "--env", "A=b=c", "--checkpoint", NAME, "--keep-outputs", "--wall-s", 1, "--cpu-s", 2,
        "--memory-bytes", 3, "--disk-bytes", 4, "--fuel", 5, "--network", "--priority", -6, "--attempts", 7,
        "--deadline-s", 8, "--jurisdiction", "CN", "--jurisdiction", "SG", "--transit", "--id", "j1",
    )  # fmt: skip
    request = run.asked[-1]
    program = run.asked[0].object
    assert request == controller_pb2.ViaSubmitRequest(
        via="beijing", policy="pinned", pinned_to=["sat-1", "sat-2"], deadline_s=8.0,
        spec=jobs_pb2.JobSpec(
            id="j1", wasm_object=program, arguments=["a"], environment={"A": "b=c"}, network=True, priority=-6,
            max_attempts=7, checkpoint_object=NAME, jurisdictions=["CN", "SG"], transit=True, keep_outputs_on_node=True,
            inputs=[jobs_pb2.JobInput(object=NAME, at_node="sat-3")],
            limits=jobs_pb2.JobLimits(wall_s=1.0, cpu_s=2.0, memory_bytes=3, disk_bytes=4, fuel=5),
        ),
    )  # fmt: skip
    assert {key: told[key] for key in ("job", "state", "node", "policy", "custodian", "exit_status")} == {
        "job": "j1", "state": "WAITING_CONTACT", "node": "sat-1", "policy": "spread", "custodian": "sat-7",
        "exit_status": None,
    }  # fmt: skip
    assert (
        "j1 on sat-1 (at sat-7): WAITING_CONTACT"
        in called("submit", "--command", "x", "--via", "b", "--id", "j1").stdout
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "one of --script FILE.py, --command 'LINE' and --wasm FILE"),
        (("--command", "x", "--on", "sat-1", "--policy", "spread"), "give one of them"),
        (("--command", "x", "--on", "sat-1", "--pin-to", "sat-2"), "give one of them"),
        (("--command", "x", "--env", "=b"), "must be KEY=VALUE"),
        (("--command", "x", "--deadline-s", "-1"), "count from 0 on"),
        (("--command", "x", "--policy", "none-fits"), "no node can take it"),
    ],
)
def test_wrong_options_of_submit_are_one_message(run: Run, options: tuple[str, ...], message: str) -> None:
    """Exit status 2."""
    error = refused("submit", "--via", "beijing", *options)
    assert message in str(error)
    assert isinstance(error, InputError)


def test_get_tells_what_it_waits_for(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error, each of what comes that is not here yet; what came in the end is not the object: no file."""
    monkeypatch.setattr(object_commands, "TELL_EVERY_S", 0.01)
    done = CliRunner().invoke(skyrack, ["get", CODED, "--via", "beijing", "--out", str(tmp_path / "back")])
    assert "from sat-2: WAITING_CONTACT, so" in done.stderr
    assert "sat-1" not in done.stderr
    assert f"what beijing sent for {CODED} is not that object" in str(done.exception)
    assert not list(tmp_path.glob("back*"))


def test_explain_has_a_line_for_every_node(run: Run) -> None:
    """As a table, and as JSON."""
    table = called("explain", "j1").stdout
    assert "j1, by earliest-result, at t = 12.0 s" in table
    assert all(word in table for word in ("chosen", "refused", "14.500", "t = 14.5 s", "lies in US"))
    told = document("explain", "j1")
    assert (told["chosen"], told["policy"], told["state"]) == ("sat-1", "earliest-result", "RUNNING")
    assert told["verdicts"][1] == {
        "node": "sat-2", "feasible": False, "reason": "lies in US, and the job is for CN alone", "score": None,
        "result_at_s": None,
    }  # fmt: skip


def test_jobs_are_listed_suspended_and_resumed(run: Run) -> None:
    """Each answers with the job; the list says who has custody."""
    assert "sat-1 (at sat-7)" in called("jobs").stdout
    assert document("suspend", "j1")["state"] == "SUSPENDED"
    assert document("resume-job", "j1")["state"] == "RUNNING"


def test_logs_are_printed_as_they_are(run: Run) -> None:
    """Bytes to standard output; the stream and whether to follow are asked for."""
    assert called("logs", "j1").stdout == "one\ntwo\n"
    assert document("logs", "j1", "--stderr", "--follow") == {"job": "j1", "stream": "stderr", "text": "one\ntwo\n"}
    assert [(each.stream, each.follow) for each in run.asked] == [(0, False), (1, True)]


def test_put_has_an_object_kept_elsewhere(run: Run, data: Path) -> None:
    """The terms go with the object and with the wish; the answer names the nodes, once it is there."""
    told = document("put", data, "--via", "beijing", "--on", "sat-1", "--jurisdiction", "CN", "--transit", "--pin")
    assert (told["size_bytes"], told["node"], told["nodes"]) == (10, "beijing", ["sat-1"])
    terms = objects_pb2.ObjectTerms(jurisdictions=["CN"], transit=True, pinned=True)
    assert run.asked[0].terms == terms
    assert run.asked[1] == controller_pb2.KeepRequest(
        via="beijing", object=told["object"], nodes=["sat-1"], terms=terms
    )
    called("put", data, "--via", "beijing", "--replicas", 3, "--no-wait")
    assert not run.asked[2].HasField("terms")
    assert run.asked[3].replicas == 3
    assert "give one of them" in str(refused("put", data, "--via", "beijing", "--on", "a", "--replicas", 2))


def test_objects_are_listed_pinned_and_removed(run: Run) -> None:
    """A pin changes nothing else of the terms."""
    (listed,) = document("objects", "--via", "beijing")["objects"]
    assert listed == {
        "object": NAME, "node": "beijing", "size_bytes": 10, "committed_bytes": 10, "jurisdictions": ["CN"],
        "transit": True, "holders": ["beijing", "sat-1"], "pinned": False,
    }  # fmt: skip
    assert "CN" in called("objects").stdout
    assert document("pin", NAME, "--via", "beijing")["pinned"]
    asked = run.asked[-1].set.terms
    assert (asked.pinned, list(asked.holders), asked.transit) == (True, ["beijing", "sat-1"], True)
    assert not document("unpin", NAME, "--via", "beijing")["pinned"]
    assert "is not at beijing" in str(refused("pin", "sha256:0", "--via", "beijing"))
    assert document("rm", NAME, "--via", "beijing") == {
        "object": NAME, "node": "beijing", "was_here": True, "waits_for": [],
    }  # fmt: skip


def test_an_object_may_be_kept_as_fragments(run: Run, data: Path) -> None:
    """The code goes with the wish; the answer, the list and `stat` say where they are, and how many may be lost."""
    told = document("put", data, "--via", "beijing", "--erasure", "1+1", "--jurisdiction", "CN", "--transit")
    header = run.asked[0]
    assert (header.via, header.size_bytes, header.k, header.m) == ("beijing", 10, 1, 1)
    assert (list(header.jurisdictions), header.transit) == (["CN"], True)
    assert [(each["node"], each["state"]) for each in told["fragments"]] == [("sat-1", "kept"), ("sat-2", "kept")]
    assert (told["k"], told["m"], told["may_lose"]) == (1, 1, 1)
    told = document("put", data, "--via", "beijing", "--erasure", "1+1", "--no-wait")
    assert told["fragments"][1]["state"] == "on its way"
    assert "as 1+1 fragments at sat-1, sat-2" in called("put", data, "--via", "beijing", "--erasure", "1+1").stdout
    assert [each["object"] for each in document("objects")["coded"]] == [CODED]
    assert "1 may be lost" in called("objects").stdout
    assert document("stat", CODED)["coded"]["fragments"][1]["state"] == "away"
    assert "0 may be lost" in called("stat", CODED).stdout
    told = document("stat", NAME)
    assert (told["nodes"], told["coded"]) == (["beijing"], None)
    assert document("rm", CODED, "--via", "beijing")["waits_for"] == ["sat-3"]
    assert "at the next contact with sat-3" in called("rm", CODED, "--via", "beijing").stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--erasure", "4"), "must be two numbers, as in 4+2"),
        (("--erasure", "4+-2"), "must be two numbers"),
        (("--erasure", "4+2", "--replicas", 2), "no --on, --replicas or --pin with it"),
        (("--erasure", "4+2", "--on", "sat-1"), "no --on, --replicas or --pin with it"),
        (("--erasure", "4+2", "--pin"), "no --on, --replicas or --pin with it"),
    ],
)
def test_wrong_codes_are_one_message(run: Run, data: Path, options: tuple[object, ...], message: str) -> None:
    """Exit status 2, and nothing is asked for."""
    error = refused("put", data, "--via", "beijing", *options)
    assert message in str(error)
    assert isinstance(error, InputError)
    assert not run.asked


def test_fragments_that_cannot_be_kept_are_an_error(run: Run, data: Path) -> None:
    """Exit status 1."""
    assert "fragment 1 is not kept at sat-2" in str(refused("put", data, "--via", "full", "--erasure", "1+1"))


def test_scrub_fails_while_something_stays_damaged(run: Run) -> None:
    """Exit status 1 then; 0 once it is repaired."""
    assert "damaged at beijing, and not repaired so far" in str(refused("scrub", "--via", "beijing"))
    run.damaged = []
    assert document("scrub", NAME, "--via", "beijing")["repaired"] == [NAME]


def test_audit_and_rotation(run: Run) -> None:
    """Each event in a line; how many nodes have new keys."""
    (event,) = document("audit")["events"]
    assert event == {
        "utc": "1970-01-01T00:00:01.500Z", "node": "controller", "kind": "denied", "who": "emulator", "what": "submit",
        "of": "j1", "reason": "lies in US",
    }  # fmt: skip
    assert "denied" in called("audit").stdout
    assert document("rotate", "a", "b") == {"rotated": 2}
