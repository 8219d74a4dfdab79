"""A home may hide the Python that tests run with from other users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def made_visible(folders: Sequence[Path]) -> str:
    """Shell commands that let everybody see some folders, in this mount namespace alone: a home may hide Python."""
    behind: dict[Path, list[Path]] = {}
    for folder in folders:
        hidden = next((each for each in reversed(folder.parents) if not each.stat().st_mode & 0o001), None)
        if hidden is not None:
            behind.setdefault(hidden, []).append(folder)
    commands = ["mount -t tmpfs aside /mnt"]
    for hidden, seen in behind.items():
        aside = [f"/mnt/{number}" for number, _ in enumerate(seen)]
        commands += [f"mkdir {at}; mount --bind {folder} {at}" for at, folder in zip(aside, seen, strict=True)]
        commands.append(f"mount -t tmpfs -o mode=755 shown {hidden}")
        commands += [f"mkdir -p {folder}; mount --move {at} {folder}" for at, folder in zip(aside, seen, strict=True)]
        commands += [f"rmdir {at}" for at in aside]
    return "; ".join(commands)
