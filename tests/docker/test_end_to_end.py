"""A small constellation in Docker from end to end, through the command line alone, as a user would run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.commands import HERE, environment, wait_until

SCENARIO = """
name = "small"
epoch = 2026-01-01T00:00:00Z
duration_s = 600.0
step_s = 1.0
seed = 7

[[constellation]]
name = "ring"
walker = { pattern = "star", total = 6, planes = 1, phasing = 0, altitude_m = 8_000_000, inclination_deg = 86.4 }
isl = { topology = "ring", rate_bps = 100_000_000 }
max_gsl = 2

[[ground]]
name = "quito"
role = "gateway"
latitude_deg = -0.18
longitude_deg = -78.47
min_elevation_deg = 5.0

[[ground]]
name = "singapore"
role = "terminal"
latitude_deg = 1.35
longitude_deg = 103.82
min_elevation_deg = 5.0
"""
BLACKOUT = """
[[fault]]
kind = "blackout"
target = "quito"
at_s = {at_s}
duration_s = {duration_s}
"""
SLOW_SCRIPT = """
import os, time
time.sleep(4)
data = open(os.environ["SKYRACK_INPUTS"].split(os.pathsep)[0], "rb").read()
open(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "length.txt"), "w").write(str(len(data)))
print("counted on", os.environ["SKYRACK_NODE"])
"""

skyrack, document, leftovers, nothing_is_left = HERE.skyrack, HERE.document, HERE.leftovers, HERE.nothing_is_left


def scenario_file(folder: Path, extra: str = "") -> Path:
    """The small scenario on disk."""
    path = folder / "small.toml"
    path.write_text(SCENARIO + extra)
    return path


def up(folder: Path, extra: str = "") -> str:
    """Bring the small scenario up; the run's id."""
    skyrack("up", scenario_file(folder, extra), "--out", folder / "record")
    run_id: str = document("status")["run_id"]
    return run_id


@pytest.fixture(autouse=True)
def clean_machine() -> Iterator[None]:
    """No run lives before or after a test."""
    skyrack("down", "--all")
    yield
    skyrack("down", "--all")


def test_a_users_session(tmp_path: Path) -> None:
    """up, status, ping by name, submit, jobs, get, down: each does what the README says, and nothing is left."""
    run_id = up(tmp_path)
    status = document("status")
    assert [node["name"] for node in status["nodes"]] == [
        *(f"ring-p00s{i:02d}" for i in range(6)),
        "quito",
        "singapore",
    ]

    ping = skyrack("exec", "quito", "--", "ping", "-c", "3", "-W", "2", "ring-p00s00")
    assert "3 received" in ping.stdout
    assert skyrack("exec", "quito", "--", "sh", "-c", "exit 7", exit_status=7).returncode == 7
    assert "did you mean 'quito'" in skyrack("exec", "quitto", "--", "true", exit_status=2).stderr

    data, script = tmp_path / "data.bin", tmp_path / "count.py"
    data.write_bytes(os.urandom(300_000))
    script.write_text(SLOW_SCRIPT)
    stored = document("put", data, "--via", "quito")
    job = document(
        "submit", "--script", script, "--via", "quito", "--on", "ring-p00s03", "--input", stored["object"],
        "--id", "count-1", "--wait",
    )  # fmt: skip
    assert (job["state"], job["exit_status"], job["node"]) == ("SUCCEEDED", 0, "ring-p00s03")
    assert job["stdout"] == "counted on ring-p00s03\n"
    again = document("submit", "--script", script, "--via", "quito", "--on", "ring-p00s03", "--input", stored["object"],
                     "--id", "count-1", "--wait")  # fmt: skip
    assert again == job, "submitting the same id again changes nothing"
    skyrack("get", job["outputs"][0]["object"], "--via", "quito", "--out", tmp_path / "length.txt")
    assert (tmp_path / "length.txt").read_text() == "300000"
    assert [entry["job"] for entry in document("jobs")["jobs"]] == ["count-1"]

    skyrack("down")
    assert leftovers(run_id) == []
    summary = json.loads((tmp_path / "record" / "summary.json").read_text())
    assert summary["jobs_by_state"] == {"SUCCEEDED": 1}
    assert summary["overruns"] == 0
    assert summary["rtt_error_one_hop_us"]["count"] > 0
    assert (tmp_path / "record" / "report.html").stat().st_size > 1_000_000


def test_a_blackout_makes_a_job_wait_and_never_fail(tmp_path: Path) -> None:
    """A job under way when its gateway goes dark waits with a reason that names the blackout, and then completes."""
    up(tmp_path, BLACKOUT.format(at_s=10.0, duration_s=15.0))
    data, script = tmp_path / "data.bin", tmp_path / "count.py"
    data.write_bytes(os.urandom(40_000_000))  # 6.4 s at 50 Mbit/s
    script.write_text(SLOW_SCRIPT)
    stored = document("put", data, "--via", "quito")
    wait_until("t = 8 s", lambda: document("status")["t_s"] >= 8.0)
    document("submit", "--script", script, "--via", "quito", "--on", "ring-p00s03", "--input", stored["object"],
             "--id", "dark-1")  # fmt: skip
    wait_until("the blackout", lambda: bool(document("status")["faults"]))

    def waits() -> bool:
        (job,) = document("jobs")["jobs"]
        return job["state"] == "WAITING_CONTACT" and "quito is in blackout" in job["reason"]

    wait_until("the job waits for the blackout's end", waits, 10.0)
    assert (
        "3 received"
        not in skyrack("exec", "quito", "--", "ping", "-c", "3", "-W", "1", "ring-p00s00", exit_status=1).stdout
    )
    job = json.loads(skyrack("watch", "dark-1", "--json").stdout)
    assert job["state"] == "SUCCEEDED"
    assert job["attempt"] == 1
    assert job["moved_bytes"] < 40_000_000 * 1.05 + 2_000_000, "what had arrived before the blackout was not sent again"


@pytest.fixture
def bystanders() -> Iterator[Callable[[], bool]]:
    """A container and a namespace of somebody else's; tells whether both are still there."""
    create = ["docker", "create", "--label", "somebody.else=1", node_image(), "true"]
    container = subprocess.run(create, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["ip", "netns", "add", "not-skyracks"], check=True)

    def both_there() -> bool:
        found = subprocess.run(["docker", "ps", "-aq", "--no-trunc"], capture_output=True, text=True, check=True).stdout
        return container in found and Path("/run/netns/not-skyracks").exists()

    yield both_there
    subprocess.run(["docker", "rm", "-f", container], check=True, capture_output=True)
    subprocess.run(["ip", "netns", "delete", "not-skyracks"], check=True)


@pytest.mark.parametrize(
    "moment",
    ['"sky: ', '"Starting nodes", 1,', '"Starting nodes", 8,', '"Joining ports"', '"Agents answering", 8', '"ready"'],
)
def test_a_killed_controller_leaves_nothing_behind(tmp_path: Path, moment: str, bystanders: Callable[[], bool]) -> None:
    """After kill -9 of the controller at several moments, `down --all` removes all of the run, and only that."""
    reader, writer = os.pipe()
    command = ["serve", scenario_file(tmp_path), "--out", tmp_path / "record", "--tell", writer]
    with subprocess.Popen(
        [sys.executable, "-m", "controller", *map(str, command)],
        pass_fds=(writer,),
        start_new_session=True,
        env=environment(),
    ) as child:
        os.close(writer)
        with os.fdopen(reader) as told:
            reached = any(moment in line for line in told)
            child.kill()
    assert reached, "the controller ended before that moment"
    run_ids = [path.parent.name for path in Path("/run/skyrack").glob("*/run.json")]
    assert all(leftovers(run_id) for run_id in run_ids)
    assert run_ids or "sky" in moment, "from when nodes start, there is something to remove"
    skyrack("down", "--all")
    for run_id in run_ids:
        wait_until("nothing is left", partial(nothing_is_left, run_id), 10.0)
    assert bystanders()


def test_the_next_up_removes_what_a_killed_run_left(tmp_path: Path) -> None:
    """`up` after a kill -9 brings a new run up, and the killed one is gone."""
    killed = up(tmp_path)
    pid = json.loads(Path(f"/run/skyrack/{killed}/run.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    (tmp_path / "second").mkdir()
    living = up(tmp_path / "second")
    assert living != killed
    assert leftovers(killed) == []
    assert document("status")["phase"] == "running"


def node_image() -> str:
    """The image of the nodes."""
    from controller.runtime.image import node_image as image

    return image()


@pytest.mark.parametrize(
    ("arguments", "exit_status", "message"),
    [
        (("run", "absent.toml"), 2, "absent.toml"),
        (("run", "iridium-66", "--duration", "0.1"), 2, "duration"),
        (("up", "iridium-67"), 2, "iridium-66"),
        (("status",), 2, "no run is up"),
        (("run", "iridium-66", "--shaper", "netem"), 3, "netem"),
    ],
)
def test_bad_input_is_one_message(arguments: tuple[str, ...], exit_status: int, message: str, tmp_path: Path) -> None:
    """Each gets one clear message on standard error, its exit status, no traceback, and nothing is left."""
    if arguments[-1] == "netem" and netem_works():
        exit_status, message = 0, ""
        arguments = (*arguments, "--duration", "2")
    before = sorted(Path("/run/skyrack").iterdir()) if Path("/run/skyrack").exists() else []
    done = skyrack(*arguments, exit_status=exit_status, cwd=tmp_path)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    after = sorted(Path("/run/skyrack").iterdir()) if Path("/run/skyrack").exists() else []
    assert after == before


def netem_works() -> bool:
    """Whether this machine's kernel has netem: then asking for it is no error."""
    from controller.fabric.choose import choose_shaper

    return choose_shaper("auto").name == "netem"
