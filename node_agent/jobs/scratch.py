"""One job's folder, from being laid out to being removed.

<scratch>/<job>/        the agent's; where the job has a user of its own, its group may write here, and nobody else look
    inputs/             copies, to do with what the job likes: the store's objects stay as they are
    output/             what lies here at the end becomes the job's outputs
    tmp/                TMPDIR
    checkpoint/state    if there is one; the job replaces it by renaming another over it
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node_agent.objects.store import ObjectStore
from node_agent.processes import leavings
from node_agent.processes.proctree import Tree

_FOLDER_MODE, _FOLDER_OF_GROUP_MODE = 0o700, 0o2770  # what is made in it is of its group again
_FILE_MODE, _FILE_OF_GROUP_MODE = 0o600, 0o660


@dataclass(frozen=True)
class Seen:
    """A file as it was looked at: another one, or a change of it, looks different."""

    inode: int
    at_ns: int
    size_bytes: int


@dataclass(frozen=True)
class Scratch:
    """One job's folder."""

    folder: Path
    user: int | None  # the job's user and group, if it has its own

    @classmethod
    def found(cls, folder: Path, users: Collection[int]) -> Scratch:
        """One that an agent has left; the users are those of jobs. Raises FileNotFoundError."""
        group = folder.lstat().st_gid
        return cls(folder, group if group in users else None)

    @property
    def inputs(self) -> Path:
        """Copies of the job's inputs."""
        return self.folder / "inputs"

    @property
    def outputs(self) -> Path:
        """What the job leaves here becomes its outputs."""
        return self.folder / "output"

    @property
    def tmp(self) -> Path:
        """For what is needed for a moment."""
        return self.folder / "tmp"

    @property
    def checkpoint(self) -> Path:
        """Where the job leaves what it would go on from."""
        return self.folder / "checkpoint" / "state"

    @property
    def _folders(self) -> tuple[Path, ...]:
        return self.folder, self.inputs, self.outputs, self.tmp, self.checkpoint.parent

    @property
    def tree(self) -> Tree:
        """The job's processes."""
        return Tree(self.user, f"SKYRACK_OUTPUT_DIR={self.outputs}")

    def make(self) -> None:
        """Make the folder and those in it. Before: it is not there. Blocks."""
        for folder in self._folders:
            folder.mkdir(mode=0o700)
            self._hand_over(folder, _FOLDER_MODE, _FOLDER_OF_GROUP_MODE)

    def copy_out(self, store: ObjectStore, name: str, path: Path) -> int:
        """Copy an object to a file of the job's. Its size. Blocks. Raises NotFound."""
        store.copy_out(name, path)
        self._hand_over(path, _FILE_MODE, _FILE_OF_GROUP_MODE)
        return path.stat().st_size

    def write(self, name: str, content: bytes) -> Path:
        """Make a file of the job's. Blocks."""
        path = self.folder / name
        path.write_bytes(content)
        self._hand_over(path, _FILE_MODE, _FILE_OF_GROUP_MODE)
        return path

    def seen_checkpoint(self) -> Seen | None:
        """The checkpoint as it is now, if there is one."""
        with suppress(OSError):
            entry = self.checkpoint.lstat()
            if stat.S_ISREG(entry.st_mode):
                return Seen(entry.st_ino, entry.st_mtime_ns, entry.st_size)
        return None

    def remove(self) -> bool:
        """Remove the folder and what is in it, unless only the job's own user can; then, False. Blocks. Idempotent.

        Raises OSError.
        """
        if self._needs_help():
            return False
        leavings.clear(str(self.folder), None)
        with suppress(FileNotFoundError):
            self.folder.rmdir()
        return True

    def _needs_help(self) -> bool:
        return self.user is not None and (
            leavings.has_left_something(self.user)
            or any(stat.S_ISDIR(entry.st_mode) and entry.st_uid == self.user for entry in self._entries())
        )

    def _entries(self) -> Iterator[os.stat_result]:
        """What lies in its folders, as far as the agent can see without help."""
        for folder in self._folders:
            with suppress(OSError):
                for entry in os.scandir(folder):
                    yield entry.stat(follow_symlinks=False)

    def _hand_over(self, path: Path, mode: int, mode_of_group: int) -> None:
        if self.user is not None:
            os.chown(path, -1, self.user)
        path.chmod(mode if self.user is None else mode_of_group)
