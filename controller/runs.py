"""A run's place on the machine, and how to tell a living run from one that was killed.

/run/skyrack/<run id>/          0700: run.json, lock, api.sock, hosts, n/<index>/ (control planes)
/var/lib/skyrack/<run id>/      0700: n/<index>/ (object stores and journals), authority/

An ordinary user's runs lie in his own folders (see controller.owner).

A controller holds its run's `lock` (flock) from before anything else of the run exists until all of it is gone, so a
run whose lock nobody holds is dead. Only folders, nodes and panels that carry a run's id are ever touched.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import re
import secrets
import select
import shutil
import signal
import string
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from controller import owner
from controller.errors import InputError, MachineError, SkyrackError
from controller.processes import start_ticks
from controller.runtime.contract import CONTROL_SOCKET

RUN_ID = re.compile(r"[a-z][a-z0-9]{7}")
END_GRACE_S = 90.0  # a run that ends in order removes its nodes and writes its report
KILL_GRACE_S = 10.0
REGISTER_DEADLINE_S = 10.0
POLL_S = 0.02
SOCKET_PATH_BYTES = 107  # sockaddr_un's, less the zero at its end


@dataclass(frozen=True)
class Roots:
    """Where runs live on this machine."""

    run: Path
    store: Path


MACHINE = Roots(owner.run_root(), owner.store_root())


@dataclass(frozen=True)
class RunPlace:
    """One run's folders and files, and the process that owns them."""

    run_id: str
    scenario: str
    out_dir: Path
    pid: int  # the controller
    pid_start_ticks: int  # when it started, in clock ticks since boot: a process id may be used again
    started_utc: datetime.datetime
    runtime: str = "docker"
    roots: Roots = MACHINE

    @classmethod
    @contextmanager
    def create(
        cls, scenario: str, out_dir: Path, n_node: int, roots: Roots = MACHINE, runtime: str = "docker"
    ) -> Iterator[RunPlace]:
        """The place of a new run, owned by this process; removed at the end.

        Raises MachineError when this user may not make it, or its path is too long for sockets.
        """
        place = cls(
            run_id=secrets.choice(string.ascii_lowercase)
            + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(7)),
            scenario=scenario,
            out_dir=out_dir,
            pid=os.getpid(),
            pid_start_ticks=start_ticks(os.getpid()) or 0,
            started_utc=datetime.datetime.now(datetime.UTC),
            runtime=runtime,
            roots=roots,
        )
        place._check_length(n_node)
        lock = place._claim(n_node)
        try:
            yield place
        finally:
            try:
                remove_folders(place.run_id, roots)
            finally:
                os.close(lock)  # last: a run that nobody holds is one to be swept

    @contextmanager
    def taken_over(self, out_dir: Path, n_node: int, remove_rest: Callable[[str], None]) -> Iterator[RunPlace]:
        """The place of a run whose controller was killed, as this process's own: its stores stay as they are.

        `remove_rest` removes what else is left of it. Removed at the end, as that of any run; but as it was where the
        run could not go on (SkyrackError), for another try. Raises InputError when it lives, or another process is at
        it.
        """
        place = replace(
            self, out_dir=out_dir, pid=os.getpid(), pid_start_ticks=start_ticks(os.getpid()) or 0,
            started_utc=datetime.datetime.now(datetime.UTC),
        )  # fmt: skip
        with register(self.roots):
            lock = os.open(self._lock_file, os.O_RDWR)
            if not _try_lock(lock, fcntl.LOCK_EX):
                os.close(lock)
                raise InputError(f"run {self.run_id} lives: it needs nobody to resume it")
            place._write_record()
        is_kept = False
        try:
            remove_rest(self.run_id)
            for path in self.run_dir.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path not in (self._lock_file, self._record_file):
                    path.unlink()
            place._make_folders(n_node)
            yield place
        except SkyrackError as error:
            self._write_record()
            is_kept = True
            told = SkyrackError(f"{error}; nothing of it is lost: `skyrack up --resume {self.run_id}` tries again")
            told.exit_status = error.exit_status
            raise told from error
        finally:
            try:
                if not is_kept:
                    remove_folders(self.run_id, self.roots)
            finally:
                os.close(lock)

    def _check_length(self, n_node: int) -> None:
        longest = self.control_dir(max(n_node - 1, 0)) / CONTROL_SOCKET
        too_many = len(os.fsencode(longest)) - SOCKET_PATH_BYTES
        if too_many > 0:
            raise MachineError(
                f"{self.roots.run}, where runs live, is {too_many} bytes too long for the path of a node's socket: "
                "set XDG_RUNTIME_DIR to a shorter folder"
            )

    def _write_record(self) -> None:
        aside = self._record_file.with_suffix(".new")  # on a full disk the one that is there stays whole
        aside.write_text(self._record())
        aside.replace(self._record_file)

    @property
    def run_dir(self) -> Path:
        """What lives only as long as the run: sockets, the lock."""
        return self.roots.run / self.run_id

    @property
    def api_socket(self) -> Path:
        """Where the controller answers."""
        return self.run_dir / "api.sock"

    @property
    def hosts_file(self) -> Path:
        """What is /etc/hosts in every node."""
        return self.run_dir / "hosts"

    def control_dir(self, index: int) -> Path:
        """Where the agent of a node makes its control socket."""
        return self.run_dir / "n" / str(index)

    def store_dir(self, index: int) -> Path:
        """Where the agent of a node keeps objects and its journal."""
        return self.roots.store / self.run_id / "n" / str(index)

    @property
    def journal_file(self) -> Path:
        """Where the controller keeps what it must know after it was killed."""
        return self.roots.store / self.run_id / "controller.db"

    @property
    def authority_dir(self) -> Path:
        """Where the run's certificate authority has its key; no node sees it."""
        return self.roots.store / self.run_id / "authority"

    def write_hosts(self, addresses: Mapping[str, str]) -> None:
        """Let every node know every node's address by its name. Before: no node has started."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
        self.hosts_file.write_text("\n".join(lines) + "\n")
        self.hosts_file.chmod(0o644)

    @property
    def alive(self) -> bool:
        """Whether the run's controller lives: it holds the lock, and it is the process that made the run.

        A child may hold an inherited lock for a moment longer than the controller, hence both.
        """
        return _is_held(self._lock_file) and start_ticks(self.pid) == self.pid_start_ticks

    def end_controller(self) -> None:
        """Ask the controller to end, wait for it, and kill it if it takes longer than END_GRACE_S. Idempotent.

        Raises SkyrackError when it does not even die.
        """
        try:
            process = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.alive:  # looked at after the process was pinned, so what is alive is what will be told
                return
            for number, grace_s in ((signal.SIGTERM, END_GRACE_S), (signal.SIGKILL, KILL_GRACE_S)):
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    signal.pidfd_send_signal(process, number)
                if select.select([process], [], [], grace_s)[0]:
                    return
        finally:
            os.close(process)
        raise SkyrackError(f"the controller of run {self.run_id} (process {self.pid}) does not end, even when killed")

    @property
    def _lock_file(self) -> Path:
        return self.run_dir / "lock"

    @property
    def _record_file(self) -> Path:
        return self.run_dir / "run.json"

    def _record(self) -> str:
        return json.dumps(
            {
                "run_id": self.run_id,
                "scenario": self.scenario,
                "out_dir": str(self.out_dir),
                "pid": self.pid,
                "pid_start_ticks": self.pid_start_ticks,
                "started_utc": self.started_utc.isoformat(),
                "runtime": self.runtime,
            }
        )

    @classmethod
    def _read(cls, run_id: str, roots: Roots) -> RunPlace | None:
        """The place of a run as it was written; None when its maker was killed before it could write."""
        try:
            record = json.loads((roots.run / run_id / "run.json").read_text())
            return cls(
                run_id=run_id,
                scenario=record["scenario"],
                out_dir=Path(record["out_dir"]),
                pid=record["pid"],
                pid_start_ticks=record["pid_start_ticks"],
                started_utc=datetime.datetime.fromisoformat(record["started_utc"]),
                runtime=record["runtime"],
                roots=roots,
            )
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _claim(self, n_node: int) -> int:
        """Make the run's folders, and the descriptor that holds its lock."""
        try:
            with register(self.roots):
                self.run_dir.mkdir(mode=0o700)
                lock = _locked(self._lock_file)
                self._record_file.write_text(self._record())
            (self.roots.store / self.run_id).mkdir(mode=0o700, parents=True)
            self._make_folders(n_node)
        except OSError as error:
            raise MachineError(f"cannot make {error.filename} ({error.strerror}): run as root, through sudo") from error
        return lock

    def _make_folders(self, n_node: int) -> None:
        for index in range(n_node):
            for folder in (self.control_dir(index), self.store_dir(index)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def killed_run(run_id: str, roots: Roots = MACHINE) -> RunPlace:
    """The place of a run whose controller was killed, to be taken over. Raises InputError when there is none."""
    places = {place.run_id: place for place in list_runs(roots)}
    place = places.get(run_id)
    if place is None:
        known = ", ".join(sorted(other.run_id for other in places.values() if not other.alive)) or "none"
        raise InputError(f"no run {run_id!r} is left on this machine (killed runs: {known})")
    if place.alive:
        raise InputError(f"run {run_id} lives: it needs nobody to resume it")
    return place


def list_runs(roots: Roots = MACHINE) -> list[RunPlace]:
    """Every run that has a place on this machine, oldest first, the dead ones too.

    Raises PermissionError when they belong to another user.
    """
    places = (RunPlace._read(run_id, roots) for run_id in folder_ids(roots.run))
    return sorted((place for place in places if place is not None), key=lambda place: place.started_utc)


def remove_folders(run_id: str, roots: Roots = MACHINE) -> None:
    """Remove a run's folders, all that they hold included. Idempotent."""
    if not RUN_ID.fullmatch(run_id):
        raise ValueError(f"{run_id!r} is no run's id")
    for folder in (roots.store / run_id, roots.run / run_id):
        with contextlib.suppress(FileNotFoundError):  # another sweep may be at it too
            shutil.rmtree(folder)


def folder_ids(root: Path) -> set[str]:
    """The runs that have a folder below a root."""
    try:
        return {path.name for path in root.iterdir() if RUN_ID.fullmatch(path.name)}
    except FileNotFoundError:
        return set()


@contextmanager
def register(roots: Roots) -> Iterator[None]:
    """Alone with the list of runs: none is half made while this is held. Raises MachineError when it cannot be had."""
    roots.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(roots.run / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline_mono_s = time.monotonic() + REGISTER_DEADLINE_S
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline_mono_s:
                raise MachineError(f"another skyrack has held {roots.run}/.lock for {REGISTER_DEADLINE_S:.0f} s")
            time.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor that holds a new file's lock until it is closed, or its owner dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _is_held(path: Path) -> bool:
    """Whether somebody holds a file's lock."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
