"""A run's place: what lives is told from what was killed, and only what carries a run's id is removed."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from controller import runs
from controller.errors import MachineError, SkyrackError
from controller.removal import remove_run, sweep
from controller.runs import Roots, RunPlace, list_runs
from controller.runtime.contract import NodeHandle, NodeSpec, ProgramSpec, ProgramState

DEADLINE_S = 20.0

CONTROLLER = """
import os, signal, sys, time
from pathlib import Path
from controller.runs import Roots, RunPlace
roots = Roots(Path(sys.argv[1]), Path(sys.argv[2]))
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with RunPlace.create("far", Path("/out"), 3, roots) as place:
    if "parent" in sys.argv and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print(place.run_id, flush=True)
    time.sleep(60)
"""


class Nothing:
    """A runtime that holds nothing, or ids that it cannot remove."""

    shortcoming = ""

    def __init__(self, held: Sequence[str] = (), refuses: str = "", name: str = "nothing") -> None:
        self.name = name
        self.held = set(held)
        self.refuses = refuses

    def start(self, specs: Sequence[NodeSpec], on_started: Callable[[int], None]) -> list[NodeHandle]:
        """See the contract."""
        return []

    def engine_version(self) -> str:
        """See the contract."""
        return "nothing 1"

    def require_images(self, images: Mapping[str, ProgramSpec], tell: Callable[[str], None]) -> None:
        """See the contract."""

    def start_programs(self, specs: Sequence[NodeSpec], on_started: Callable[[int], None]) -> None:
        """See the contract."""

    def programs(self, run_id: str) -> dict[str, ProgramState]:
        """See the contract."""
        return {}

    def exec(self, run_id: str, node: str, argv: Sequence[str], *, of_agent: bool = False) -> int:
        """See the contract."""
        return 127

    def alive(self, run_id: str) -> set[str]:
        """See the contract."""
        return set()

    def remove(self, run_id: str) -> int:
        """See the contract."""
        if run_id == self.refuses:
            raise SkyrackError("device or resource busy")
        was_held = run_id in self.held
        self.held.discard(run_id)
        return int(was_held)

    def run_ids(self) -> set[str]:
        """See the contract."""
        if self.refuses == "all":
            raise MachineError("no answer")
        return set(self.held)


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """Places for runs that no other test and no real run uses."""
    return Roots(tmp_path / "run", tmp_path / "store")


@pytest.fixture
def controllers(roots: Roots) -> Iterator[Callable[..., tuple[subprocess.Popen[str], RunPlace]]]:
    """Starts controllers in processes of their own, each with a run; ends them all."""
    started: list[subprocess.Popen[str]] = []

    def start(*manners: str) -> tuple[subprocess.Popen[str], RunPlace]:
        process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLER, str(roots.run), str(roots.store), *manners],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        return process, next(place for place in list_runs(roots) if place.run_id == run_id)

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            assert process.poll() is not None
        process.wait(DEADLINE_S)
        assert process.stdout is not None
        process.stdout.close()


def clear(everything: bool, roots: Roots, *runtimes: Nothing, panels: Sequence[str] = ()) -> list[str]:
    """A sweep with runtimes and panels of the test's own."""
    return sweep(everything, runtimes, lambda: set(panels), lambda _: False, roots)


def test_a_place_lives_as_long_as_its_block(roots: Roots) -> None:
    """While the block runs the place is listed, private and alive; afterwards nothing of it is left."""
    with RunPlace.create("near", Path("/out"), 2, roots) as place:
        assert runs.RUN_ID.fullmatch(place.run_id)
        assert place.control_dir(1).is_dir()
        assert place.store_dir(1).is_dir()
        assert place.run_dir.stat().st_mode & 0o777 == 0o700
        assert place.store_dir(0).parents[1].stat().st_mode & 0o777 == 0o700
        assert list_runs(roots) == [place]
        assert place.alive
    assert list_runs(roots) == []
    assert [*roots.store.iterdir()] == []
    assert [path.name for path in roots.run.iterdir()] == [".lock"]


def test_sockets_fit_their_paths() -> None:
    """A control socket's path of the largest run stays within the 107 bytes of a Unix socket's address."""
    place = RunPlace("a1234567", "s", Path(), 1, 1, datetime.datetime.now(datetime.UTC))
    assert len(str(place.control_dir(99_999) / "control.sock")) <= 107


def test_hosts_name_every_node(roots: Roots) -> None:
    """The hosts file gives every node's address, and any user may read it, as a node is not root."""
    with RunPlace.create("near", Path("/out"), 0, roots) as place:
        place.write_hosts({"beijing": "10.64.0.1", "suva": "10.64.0.2"})
        assert place.hosts_file.read_text() == "127.0.0.1 localhost\n10.64.0.1 beijing\n10.64.0.2 suva\n"
        assert place.hosts_file.stat().st_mode & 0o777 == 0o644


def test_a_killed_run_is_swept_and_a_living_one_is_not(
    roots: Roots, controllers: Callable[..., tuple[subprocess.Popen[str], RunPlace]]
) -> None:
    """A sweep removes what a controller left that was killed, and leaves every living run alone."""
    process, dead = controllers()
    _, living = controllers()
    assert dead.alive
    process.kill()
    process.wait(DEADLINE_S)
    assert not dead.alive
    assert clear(False, roots) == [dead.run_id]
    assert not dead.run_dir.exists()
    assert not dead.store_dir(0).exists()
    assert living.alive
    assert living.store_dir(2).is_dir()
    assert clear(False, roots) == []


def test_a_child_that_outlives_its_controller_does_not_make_it_live(
    roots: Roots, controllers: Callable[..., tuple[subprocess.Popen[str], RunPlace]]
) -> None:
    """A forked child inherits the lock: the run is dead all the same once its controller is."""
    process, place = controllers("parent")
    process.kill()
    process.wait(DEADLINE_S)
    assert not place.alive
    assert clear(False, roots) == [place.run_id]


def test_a_run_that_cannot_go_on_can_be_resumed_again(
    controllers: Callable[..., tuple[subprocess.Popen[str], RunPlace]], roots: Roots
) -> None:
    """What its nodes keep, and where its record is, stay as they were; when it has gone on, nothing of it is left."""
    process, _ = controllers()
    process.kill()
    process.wait(DEADLINE_S)
    (killed,) = list_runs(roots)
    kept = killed.store_dir(0) / "kept"
    kept.write_text("what was acknowledged")
    with (
        pytest.raises(SkyrackError, match=f"no space.*`skyrack up --resume {killed.run_id}` tries again"),
        runs.killed_run(killed.run_id, roots).taken_over(Path("/other"), 3, lambda _: None),
    ):
        raise SkyrackError("no space left")
    again = runs.killed_run(killed.run_id, roots)
    assert (kept.read_text(), again.out_dir) == ("what was acknowledged", Path("/out"))
    with again.taken_over(Path("/other"), 3, lambda _: None) as place:
        assert list_runs(roots) == [place]
        assert place.out_dir == Path("/other")
    assert list_runs(roots) == []
    assert not kept.exists()


@pytest.mark.parametrize("manner", ["gentle", "stubborn"])
def test_everything_ends_living_runs_too(
    roots: Roots,
    controllers: Callable[..., tuple[subprocess.Popen[str], RunPlace]],
    monkeypatch: pytest.MonkeyPatch,
    manner: str,
) -> None:
    """A living controller is asked to end, and killed only when it does not; its run is removed either way."""
    if manner == "stubborn":
        monkeypatch.setattr(runs, "END_GRACE_S", 0.2)
    process, place = controllers(manner)
    assert clear(True, roots) == [place.run_id]
    assert process.wait(DEADLINE_S) == (-signal.SIGKILL if manner == "stubborn" else 0)
    assert not place.run_dir.exists()


def test_a_process_id_that_was_used_again_is_never_signalled(
    roots: Roots, controllers: Callable[..., tuple[subprocess.Popen[str], RunPlace]]
) -> None:
    """Another process under the controller's number is not taken for it, even while somebody holds the lock."""
    process, place = controllers()
    record = json.loads((place.run_dir / "run.json").read_text())
    record["pid_start_ticks"] += 1
    (place.run_dir / "run.json").write_text(json.dumps(record))
    [reread] = list_runs(roots)
    assert not reread.alive
    reread.end_controller()
    assert process.poll() is None


def test_only_what_carries_a_runs_id_is_touched(roots: Roots) -> None:
    """Ids that are not a run's, wherever they come from, name nothing to remove."""
    for root in (roots.run, roots.store):
        (root / "somebody-elses").mkdir(parents=True)
        (root / "K3F9A1C2").mkdir()
    runtime = Nothing(held=["../../etc", "x", "a1234567"])
    assert clear(True, roots, runtime, panels=["lab", "b1234567"]) == ["a1234567", "b1234567"]
    assert runtime.held == {"../../etc", "x"}
    assert (roots.run / "somebody-elses").is_dir()
    assert (roots.store / "K3F9A1C2").is_dir()
    with pytest.raises(ValueError, match="no run's id"):
        remove_run("../../etc", [], lambda _: False, roots)


def test_a_maker_killed_before_it_wrote_anything_is_swept(roots: Roots) -> None:
    """A folder without a record, or with half of one, belongs to nobody who lives."""
    for run_id, half in (("a1234567", None), ("b1234567", '{"run_id": "b12')):
        (roots.run / run_id).mkdir(parents=True)
        if half is not None:
            (roots.run / run_id / "run.json").write_text(half)
    assert list_runs(roots) == []
    assert clear(False, roots) == ["a1234567", "b1234567"]


def test_one_run_that_cannot_be_removed_does_not_save_the_others(roots: Roots) -> None:
    """Every run is tried; the error names the one that stays, and why."""
    runtime = Nothing(held=["a1234567", "b1234567", "c1234567"], refuses="b1234567")
    with pytest.raises(SkyrackError, match="run b1234567: device or resource busy"):
        clear(False, roots, runtime)
    assert runtime.held == {"b1234567"}


def test_a_run_needs_its_own_runtime_alone(
    roots: Roots, controllers: Callable[..., tuple[subprocess.Popen[str], RunPlace]]
) -> None:
    """Another that refuses, or does not even answer, keeps nothing of it; where nobody knows, every one is asked."""
    for refuses in ("the run", "all"):
        _, place = controllers()  # of Docker's, as it says
        own, other = Nothing([place.run_id], name="docker"), Nothing(name="namespace")
        other.refuses = place.run_id if refuses == "the run" else refuses
        if refuses == "all":
            with pytest.raises(SkyrackError, match=r"^no answer$"):
                clear(True, roots, own, other)
        else:
            assert clear(True, roots, own, other) == [place.run_id]
        assert own.held == set()
        assert not place.run_dir.exists()
    unknown = Nothing(["a1234567"], refuses="a1234567", name="namespace")
    with pytest.raises(SkyrackError, match="run a1234567: device or resource busy"):
        clear(True, roots, Nothing(name="docker"), unknown)


def test_a_sweep_of_one_run_leaves_the_others(roots: Roots) -> None:
    """Only what carries its id; one that there is not is none removed."""
    runtime = Nothing(["aaaaaaaa", "bbbbbbbb"])
    assert sweep(False, [runtime], set, lambda _: False, roots, only="bbbbbbbb") == ["bbbbbbbb"]
    assert runtime.held == {"aaaaaaaa"}
    assert sweep(True, [runtime], set, lambda _: False, roots, only="cccccccc") == []


def test_the_panel_goes_also_when_a_runtime_refuses(roots: Roots) -> None:
    """What needs no runtime is removed, and the refusal is told."""
    panels: list[str] = []

    def remove_panel(run_id: str) -> bool:
        panels.append(run_id)
        return True

    with pytest.raises(SkyrackError, match="device or resource busy"):
        remove_run("aaaaaaaa", [Nothing(["aaaaaaaa"], refuses="aaaaaaaa")], remove_panel, roots)
    assert panels == ["aaaaaaaa"]


def test_sweeps_never_take_a_run_that_is_starting(roots: Roots) -> None:
    """Runs that come and go while others sweep are each whole until their block ends."""
    enough = threading.Event()
    failures: list[BaseException] = []

    def keep_sweeping() -> None:
        try:
            while not enough.is_set():
                clear(False, roots)
        except BaseException as error:  # noqa: BLE001  (asserted below)
            failures.append(error)

    sweepers = [threading.Thread(target=keep_sweeping) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    until_mono_s = time.monotonic() + 1.5
    while time.monotonic() < until_mono_s:
        with RunPlace.create("near", Path("/out"), 2, roots) as place:
            assert place.control_dir(1).is_dir()
            assert place.store_dir(1).is_dir()
            assert place.alive
    enough.set()
    for sweeper in sweepers:
        sweeper.join(DEADLINE_S)
    assert failures == []
