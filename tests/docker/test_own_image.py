"""A user's images in nodes, unmodified and real: they run, see the emulated network alone, know where they are, end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.errors import InputError, MachineError
from controller.runtime.contract import ProgramSpec
from controller.runtime.docker import DockerRuntime
from controller.runtime.engine import connect
from deploy.build_image import has_image
from tests.commands import HERE, wait_until
from tests.docker.own_images import PORT, own_images

DOCUMENT = Path(__file__).parents[2] / "docs" / "images.md"
NODES = ("ring-p00s00", "ring-p00s03", "quito", "singapore", "manila")
HOSTS = ("ring-p00s00", *NODES[2:])

SCENARIO = """
name = "own"
epoch = 2026-01-01T00:00:00Z
duration_s = 600.0

[[constellation]]
name = "ring"
walker = {{ pattern = "star", total = 6, planes = 1, phasing = 0, altitude_m = 8_000_000, inclination_deg = 86.4 }}
isl = {{ topology = "ring", rate_bps = 100_000_000 }}
max_gsl = 2
image = "{scratch}"
image_on = ["*s00"]

[[ground]]
name = "quito"
role = "gateway"
latitude_deg = -0.18
longitude_deg = -78.47
min_elevation_deg = 5.0
image = "{distroless}"
command = ["/usr/bin/seeker", "seek", "ring-p00s00", "9000"]

[[ground]]
name = "singapore"
role = "terminal"
latitude_deg = 1.35
longitude_deg = 103.82
min_elevation_deg = 5.0
image = "{debian}"
environment = {{ PURPOSE = "to see = to know" }}

[[ground]]
name = "manila"
role = "terminal"
latitude_deg = 14.6
longitude_deg = 121.0
min_elevation_deg = 5.0
image = "{alpine}"
"""


@dataclass(frozen=True)
class Up:
    """A run that is up."""

    run_id: str
    record: Path

    def skyrack(self, command: str, *arguments: object, exit_status: int = 0) -> str:
        """What a command prints of this run."""
        return HERE.skyrack(command, "--run", self.run_id, *arguments, exit_status=exit_status).stdout

    def inside(self, node: str, *argv: str, exit_status: int = 0, agent: bool = False) -> str:
        """What a command prints that runs in a node."""
        return self.skyrack("exec", *(("--agent",) if agent else ()), node, "--", *argv, exit_status=exit_status)

    def status_of(self, node: str) -> Any:
        """A node as `status` has it."""
        told = json.loads(self.skyrack("status", "--json"))
        return next(each for each in told["nodes"] if each["name"] == node)

    def events(self, kind: str) -> list[Any]:
        """The events of a kind, so far."""
        lines = map(json.loads, (self.record / "events.jsonl").read_text().splitlines())
        return [event for event in lines if event["kind"] == kind]


def bring_up(folder: Path, scenario: str) -> Up:
    """A scenario, up."""
    (folder / "own.toml").write_text(scenario)
    said = HERE.skyrack("up", folder / "own.toml", "--runtime", "docker", "--out", folder / "record").stdout
    return Up(said.split()[1], folder / "record")


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, str]]:
    """The images' names."""
    with own_images() as names:
        yield names


@pytest.fixture(scope="module")
def run(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A run in which every kind of image is hosted, for tests that only look."""
    made = bring_up(tmp_path_factory.mktemp("own"), SCENARIO.format(**images))
    yield made
    made.skyrack("down")
    assert HERE.leftovers(made.run_id) == []


def container(run: Up, node: str) -> Any:
    """What Docker says of a node's program."""
    name = f"skyrack-{run.run_id}-{node}.program"
    return json.loads(subprocess.run(["docker", "inspect", name], capture_output=True, check=True).stdout)[0]


def test_every_kind_of_image_runs_as_it_is(run: Up, images: dict[str, str]) -> None:
    """Each comes up, with its own entry point or the scenario's command; status and record name it."""
    for node, kind in zip(HOSTS, ("scratch", "distroless", "debian", "alpine"), strict=True):
        program = run.status_of(node)["program"]
        assert program["image"] == images[kind]
        assert program["running"] or node == "quito"
    assert "program" not in run.status_of("ring-p00s03")
    started = {event["node"]: event for event in run.events("program-started")}
    assert set(started) == set(HOSTS)
    for node in HOSTS:
        assert started[node]["image_id"] == container(run, node)["Image"]
    assert "programs: " in run.skyrack("status")


def test_a_program_finds_its_place_and_another_by_name(run: Up) -> None:
    """A program without a shell reads where it is over HTTP, sees lo and its ports alone, and talks over the shaped
    links to a static one that is alone in its image; how it ended is told."""
    wait_until("the end is told", lambda: bool(run.events("program-ended")))
    (end,) = run.events("program-ended")
    assert (end["node"], end["exit_status"], end["reason"]) == ("quito", 3, "")
    assert "heard: ring-p00s00 hears good day" in end["last_words"]
    said = subprocess.run(
        ["docker", "logs", f"skyrack-{run.run_id}-quito.program"], capture_output=True, text=True, check=True
    ).stdout
    found = [line.partition(": ") for line in said.splitlines()]
    ports = {text.split(":")[0].strip() for what, _, text in found if what == "/proc/net/dev" and "|" not in text}
    assert ports - {"tunl0", "sit0", "ip6tnl0"} == {"lo", "gsl0"}
    place = json.loads(next(text for what, _, text in found if what == "place"))
    assert (place["latitude_deg"], place["longitude_deg"]) == pytest.approx((-0.18, -78.47), abs=1e-6)
    assert run.status_of("quito")["program"] == {
        "image": container(run, "quito")["Config"]["Image"], "running": False, "exit_status": 3, "reason": "",
    }  # fmt: skip
    assert "quito: its program" in run.skyrack("status")
    refused = HERE.skyrack("exec", "--run", run.run_id, "quito", "--", "true", exit_status=1).stderr
    assert "has ended with exit status 3" in refused
    assert "skyrack exec --agent quito" in refused
    assert run.inside("quito", "hostname", agent=True) == "quito\n", "the node lives on"


def test_debian_lives_in_the_emulated_network(run: Up) -> None:
    """Its own ping starts and is answered after the links' delay; names are known; the agent's data plane is closed to
    it, and so are the machine, other processes, and the network's own settings."""
    inside = partial(run.inside, "singapore")
    ping = inside("ping", "-c", "3", "-W", "2", "ring-p00s00")
    assert "3 received" in ping
    assert float(ping.rsplit("= ")[-1].split("/")[0]) > 40.0, "8,000 km and more, there and back"
    assert inside("getent", "hosts", "quito").split()[1] == "quito"
    assert inside("hostname") == "singapore\n"
    assert set(inside("ls", "/sys/class/net").split()) - {"tunl0", "sit0", "ip6tnl0"} == {"lo", "gsl0"}
    assert inside("sh", "-c", "echo $PURPOSE $SKYRACK_NODE $SKYRACK_ROLE $SKYRACK_SKY") == (
        "to see = to know singapore terminal http://127.0.0.1:7071\n"
    )
    assert "sleep" in inside("cat", "/proc/1/comm"), "its own processes, and none of the agent's"
    inside("ip", "link", "set", "gsl0", "mtu", "9000", exit_status=2)
    inside("ip", "route", "add", "default", "dev", "gsl0", exit_status=2)
    inside("ls", "/run/skyrack", exit_status=2)
    inside("sh", "-c", "echo mine > /anywhere && cat /anywhere")


def test_a_program_is_told_of_the_sky(run: Up) -> None:
    """BusyBox's wget reads place, contacts and peers; peers are those that the node is linked with."""
    asked = {
        path: json.loads(run.inside("manila", "wget", "-q", "-O", "-", f"http://127.0.0.1:7071{path}"))
        for path in ("/", "/clock", "/place", "/contacts", "/peers")
    }
    assert asked["/"]["node"] == "manila"
    assert asked["/place"]["latitude_deg"] == pytest.approx(14.6, abs=1e-6)
    assert asked["/place"]["t_s"] == pytest.approx(asked["/clock"]["t_s"], abs=60.0)
    assert len(asked["/peers"]["peers"]) == run.status_of("manila")["links_up"] == 1
    (peer,) = asked["/peers"]["peers"]
    assert peer in asked["/contacts"]["contacts"]
    assert "3 packets received" in run.inside("manila", "ping", "-c", "3", "-W", "2", peer["peer"])
    answer = run.inside("manila", "sh", "-c", f"echo good day | nc ring-p00s00 {PORT}")
    assert answer == "ring-p00s00 hears good day\n"
    satellite = json.loads(run.inside("ring-p00s03", "python3", "-c", ASK_PLACE))
    assert satellite["altitude_m"] == pytest.approx(8_000_000, abs=60_000)


ASK_PLACE = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:7071/place', timeout=20).read().decode())"


def test_a_program_is_bounded(run: Up) -> None:
    """Half of the node's limits are its own; it has neither the capability to change the network nor a way to more."""
    host = container(run, "singapore")["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 256 * 1024 * 1024
    assert (host["NanoCpus"], host["PidsLimit"]) == (500_000_000, 64)
    lines = run.inside("singapore", "cat", "/proc/self/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert not int(status["CapBnd"], 16) >> 12 & 1, "CAP_NET_ADMIN"
    assert not int(status["CapBnd"], 16) >> 21 & 1, "CAP_SYS_ADMIN"
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_a_killed_controller_leaves_no_program(images: dict[str, str], tmp_path: Path) -> None:
    """After kill -9 `down` removes programs and agents alike."""
    run = bring_up(tmp_path, SCENARIO.format(**images))
    os.kill(json.loads(Path(f"/run/skyrack/{run.run_id}/run.json").read_text())["pid"], signal.SIGKILL)
    assert len(HERE.run("docker", "ps", "-aq", "--filter", f"label=skyrack.run={run.run_id}").split()) == 9 + 4
    run.skyrack("down")
    wait_until("nothing is left", partial(HERE.nothing_is_left, run.run_id), 10.0)


def test_the_node_outlives_its_program_and_not_the_other_way_round(images: dict[str, str], tmp_path: Path) -> None:
    """A program that uses too much memory ends, and that is told; a node whose agent's container is gone is lost,
    whatever its program does."""
    hungry = 'command = ["sh", "-c", "sleep 1; head -c 400000000 /dev/zero | tail"]\nenvironment'
    run = bring_up(tmp_path, SCENARIO.format(**images).replace("environment", hungry))
    try:
        wait_until("both ends are told", lambda: len(run.events("program-ended")) == 2)
        end = next(event for event in run.events("program-ended") if event["node"] == "singapore")
        assert end["exit_status"] == 137
        assert end["reason"] == "over its memory limit of 268435456 bytes"
        assert run.status_of("singapore")["down"] == ""
        HERE.run("docker", "rm", "-f", f"skyrack-{run.run_id}-manila")
        wait_until("the node is lost", lambda: bool(run.events("node-lost")))
        assert run.events("node-lost")[0]["node"] == "manila"
        assert "is lost" in run.status_of("manila")["down"]
    finally:
        run.skyrack("down")
    assert HERE.leftovers(run.run_id) == []


@pytest.fixture
def debian_12(images: dict[str, str]) -> Iterator[None]:
    """Debian under the name that the documentation has it by, on machines without it."""
    client = connect()
    try:
        is_here = has_image(client, "debian:12")
        if not is_here:
            client.images.get(images["debian"]).tag("debian", "12")
        yield
        if not is_here:
            client.images.remove("debian:12", noprune=True)
    finally:
        client.close()


@pytest.mark.usefixtures("debian_12")
def test_the_documented_scenario_works_as_printed(tmp_path: Path) -> None:
    """docs/images.md: its program says where it is, again and again, and its commands do what they say."""
    printed = DOCUMENT.read_text().partition("```toml\n")[2].partition("```")[0]
    run = bring_up(tmp_path, printed)
    try:
        name = f"skyrack-{run.run_id}-ring-p00s00.program"
        wait_until("it says where it is", lambda: HERE.run("docker", "logs", name).count("r_ecef_m") >= 2)
        assert run.inside("ring-p00s00", "getent", "hosts", "quito").split()[1] == "quito"
        assert name in HERE.run("docker", "ps", "--filter", "label=skyrack.part=program")
    finally:
        run.skyrack("down")


def program(image: str, *command: str) -> ProgramSpec:
    """Of an image, with room."""
    return ProgramSpec(image, command, (), 64 * 1024 * 1024, 1.0, 64)


def test_an_image_that_cannot_be_is_told_before_anything_starts(images: dict[str, str]) -> None:
    """One that is neither here nor at a registry: which, why, and what to do. One that names no program: the same."""
    runtime = DockerRuntime()
    told: list[str] = []
    try:
        with pytest.raises(MachineError) as lacking:
            runtime.require_images({"a.toml: ground[0].image": program("nosuch.invalid/x:1")}, told.append)
        assert "a.toml: ground[0].image = 'nosuch.invalid/x:1': is not on this machine" in str(lacking.value)
        assert "`docker load`" in str(lacking.value)
        assert told == ["pulling nosuch.invalid/x:1"]
        with pytest.raises(InputError, match="names no program to start"):
            runtime.require_images({"ground[0].image": program(images["silent"])}, told.append)
        runtime.require_images({"ground[0].image": program(images["silent"], "/seeker", "listen", "1")}, told.append)
    finally:
        runtime.close()


@pytest.mark.parametrize(
    ("runtime", "image", "exit_status", "said"),
    [
        ("docker", "nosuch.invalid/x:1", 3, "constellation[0].image = 'nosuch.invalid/x:1': is not on this machine"),
        ("namespace", "alpine", 2, "constellation[0].image = 'alpine': nodes of --runtime namespace have no images"),
    ],
)
def test_a_run_that_cannot_be_ends_with_one_message(
    runtime: str, image: str, exit_status: int, said: str, tmp_path: Path
) -> None:
    """Before a folder, a container or a namespace is made."""
    (tmp_path / "own.toml").write_text(SCENARIO.format(scratch=image, distroless="x", debian="x", alpine="x"))
    arguments = ("run", tmp_path / "own.toml", "--runtime", runtime, "--out", tmp_path / "record")
    done = HERE.skyrack(*arguments, exit_status=exit_status)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "record").exists()


def test_a_command_that_the_image_does_not_have(images: dict[str, str], tmp_path: Path) -> None:
    """The run ends with Docker's reason, and nothing is left of it."""
    scenario = SCENARIO.format(**images).replace("/usr/bin/seeker", "/no/such/program")
    (tmp_path / "own.toml").write_text(scenario)
    done = HERE.skyrack(
        "run", tmp_path / "own.toml", "--runtime", "docker", "--out", tmp_path / "record", exit_status=1
    )
    assert "start the program of quito" in done.stderr
    assert "/no/such/program" in done.stderr
    run_id = json.loads((tmp_path / "record" / "manifest.json").read_text())["run_id"]
    assert HERE.leftovers(run_id) == []
