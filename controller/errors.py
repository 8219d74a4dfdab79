"""The errors that reach a user, and the exit status of each.

SkyrackError          1  the run failed
├── InputError        2  what the user gave is wrong: what, where, and what would be right
└── MachineError      3  the machine lacks something that `skyrack doctor` names
"""

from __future__ import annotations


class SkyrackError(Exception):
    """A run could not go on. The message says what was wrong, where, and what would be right."""

    exit_status = 1


class InputError(SkyrackError):
    """The user's input is wrong; nothing was started."""

    exit_status = 2


class MachineError(SkyrackError):
    """The machine lacks something: a permission, an engine, a kernel feature, memory."""

    exit_status = 3
