"""A request of the agent's to the first process, as it comes over the socket: checked before anything is done for it.

The agent is the less trusted side: whoever has taken it over may say anything here, and must get no further than the
agent does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from node_agent.processes.proctree import Tree
from node_agent.processes.users import Users

START, SIGNAL = "start", "signal"
_HELP: Final = {
    "measure": ("path",),
    "open up": ("path",),
    "open": ("path",),
    "clear": ("path",),
    "make key": ("path", "name"),
    "take certificate": ("path", "name", "role", "certificate_pem", "authority_pem"),
    "mend": (),
}
_NUMBERS: Final = {"mend": ("k", "m", "index")}
_MAX_NUMBER: Final = 255
_SIGNALS: Final = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT)


@dataclass(frozen=True)
class Request:
    """What is to be done, for which job, and with what."""

    do: str
    tree: Tree
    fields: dict[str, str]  # of a helper's
    number: int = 0  # of a signal
    numbers: dict[str, int] = field(default_factory=dict)  # of a helper's

    @classmethod
    def of(cls, message: bytes, users: Users | None) -> Request:
        """As a message has it. Raises ValueError with what is wrong with it."""
        try:
            said = json.loads(message)
        except RecursionError:
            raise ValueError("a request nests too deep") from None
        if not isinstance(said, dict):
            raise ValueError(f"a request is an object with fields, no {type(said).__name__}")
        do, user, mark = said.get("do"), said.get("user"), _text(said, "mark")
        if do != START and do != SIGNAL and (not isinstance(do, str) or do not in _HELP):
            raise ValueError(f"nothing is known of {str(do)[:100]!r}")
        if user is not None and (users is None or type(user) is not int or user not in users.of_jobs):
            raise ValueError(f"user {str(user)[:100]} is none of jobs'")
        if do in (START, SIGNAL):
            if users is not None and user is None:
                raise ValueError(f"{do}: where jobs are users of their own, it is for one of them")
            if user is None and "=" not in mark:
                raise ValueError(f"{do}: the mark {mark[:100]!r} is no NAME=value")  # every process has the empty one
        number = said.get("number") if do == SIGNAL else signal.SIGCONT
        if (type(number) is not int and not isinstance(number, signal.Signals)) or number not in _SIGNALS:
            raise ValueError(f"signal {str(number)[:100]} is none that jobs are sent")
        texts = {name: _text(said, name) for name in _HELP.get(do, ())}
        numbers = {name: _number(said, name) for name in _NUMBERS.get(do, ())}
        return cls(do, Tree(user, mark), texts, int(number), numbers)


def reply_of(fds: list[int]) -> tuple[socket.socket | None, list[int]]:
    """Where the answers go, if that is a socket, and the other descriptors, which are open still."""
    if fds and stat.S_ISSOCK(os.fstat(fds[0]).st_mode):
        with suppress(OSError):
            reply = socket.socket(fileno=fds[0])
            return reply, fds[1:]
    return None, fds


def _number(said: dict[str, Any], name: str) -> int:
    number = said.get(name)
    if type(number) is not int or not 0 <= number <= _MAX_NUMBER:
        raise ValueError(f"{name} is missing, or no number from 0 to {_MAX_NUMBER}")
    return number


def _text(said: dict[str, Any], name: str) -> str:
    text = said.get(name)
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(f"{name} is missing, or no text")
    text.encode()  # half of a surrogate pair is a UnicodeEncodeError, a ValueError
    return text
