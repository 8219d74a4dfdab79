"""The folder of objects: which file is what, and moves that last. All of it blocks, if only briefly."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node_agent.objects.partial import Partial

_FILE: Final = re.compile(r"([0-9a-f]{64})(\.part)?")


@dataclass(frozen=True)
class Found:
    """A file of the folder."""

    path: Path
    digest: str  # empty: it is none of an object's
    is_part: bool
    file_bytes: int


class Shelf:
    """Files by the digest of their object's name: `DIGEST`, `DIGEST.part`, `damaged/DIGEST`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.damaged = folder / "damaged"
        for own in (folder, self.damaged):
            own.mkdir(parents=True, exist_ok=True)
            own.chmod(0o700)  # no job's, whatever the umask

    def whole(self, digest: str) -> Path:
        """Where an object is when it is whole."""
        return self._folder / digest

    def part(self, digest: str) -> Path:
        """Where it is as long as it is not."""
        return self._folder / f"{digest}.part"

    def aside(self, digest: str) -> Path:
        """Where it is when it was found damaged."""
        return self.damaged / digest

    def found(self) -> Iterator[Found]:
        """All that lies here, damaged ones apart; an object before a part of it."""
        for path in sorted(self._folder.iterdir()):
            if path != self.damaged:
                match = _FILE.fullmatch(path.name)
                yield Found(path, match[1] if match else "", bool(match and match[2]), path.stat().st_size)

    def free_bytes(self) -> int:
        """What the disk has left for this user."""
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def oldest_aside(self) -> Path | None:
        """The damaged file that has lain there longest."""
        return min(self.damaged.iterdir(), key=modified_unix_s, default=None)

    def file_bytes(self, digest: str) -> int:
        """How large the file is of an object that is whole."""
        return self.whole(digest).stat().st_size

    def keep(self, part: Partial, digest: str) -> None:
        """Make a partial the object. Raises OSError."""
        part.sync()
        _move(part.path, self.whole(digest))

    def set_aside(self, digest: str) -> int:
        """Take a damaged object away from where it is read. How many bytes there were; none if its file has gone."""
        aside = self.aside(digest)
        with suppress(FileNotFoundError):
            _move(self.whole(digest), aside)
            sync_folder(self._folder)
        return aside.stat().st_size if aside.exists() else 0

    def remove(self, *paths: Path) -> None:
        """Have files no longer."""
        for path in paths:
            path.unlink(missing_ok=True)
        sync_folder(self._folder)


def modified_unix_s(path: Path) -> float:
    """When a file was last written to; 0 if it is not there."""
    return path.stat().st_mtime if path.exists() else 0.0


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last. Blocks."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _move(path: Path, to: Path) -> None:
    os.replace(path, to)
    sync_folder(to.parent)
