"""How long work tells what it does: the face that `cli` gives it, and a silent one."""

from __future__ import annotations

from typing import Protocol


class Narrator(Protocol):
    """Hears of a run's progress. Called from the controller's event loop and from worker threads."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Some of a known number is done; the last call of each `what` has done == total."""

    def say(self, text: str) -> None:
        """Something happened that the user would want to see."""


class Silent:
    """Tells nobody."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Hear and forget."""

    def say(self, text: str) -> None:
        """Hear and forget."""
