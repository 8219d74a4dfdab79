"""Commanded states, handed to the delay line through memory that it and its controller map: a plan is one copy.

The memory holds the newest PLANS plans, each complete: the moment from which it holds, then a record a port. The
controller alone writes them: the next plan into the slot of the oldest, then the plan's number into the first word.
The delay line looks a frame's state up as it takes the frame, by the moment at which the frame was sent: however late
it is, a frame is judged by the plan that held when it was sent, and a plan holds for every frame sent after `publish`
returned.

Nothing is read torn, and nobody waits for anybody. A slot is written anew only after PLANS - 1 later plans have been
published, so a record was whole if, after it was read, fewer had been; else it is read again. A lock of the
controller's that it was stopped in would stop every frame. The number is one aligned word, and seen after what it
stands for: x86-64 shows stores in their order, weaker processors those before a lock's release and after its next hold.

Standard library only: the delay line starts in a moment and stays small.
"""

from __future__ import annotations

import mmap
import struct
import threading

PLANS = 8

RECORD = struct.Struct("=qqqdq")
"""Peer (-1: dark), delay in µs, rate in bit/s, loss ratio, queue limit in bytes."""

State = tuple[int, int, int, float, int]
"""A record's fields."""

LOST, DROPPED = 0, 1
"""What is counted of a port: frames lost as commanded, frames that the full queue dropped."""

_WORD = 8
_NEWEST = 0  # the word with the newest plan's number, from 1
_RECORD_WORDS = RECORD.size // _WORD
_COUNTERS = 2


class PlanMemory:
    """One side's view of the memory behind a descriptor (memfd_create), for so many ports."""

    def __init__(self, descriptor: int, n_port: int) -> None:
        self._slot_words = 1 + n_port * _RECORD_WORDS
        # slot PLANS is where the delay line shows what it holds
        self._slots = [1 + slot * self._slot_words for slot in range(PLANS + 1)]
        self._counters = 1 + (PLANS + 1) * self._slot_words
        self._end = self._counters + n_port * _COUNTERS
        self._map = mmap.mmap(descriptor, self._end * _WORD)
        self._words = memoryview(self._map).cast("q")
        self._barrier = threading.Lock()

    @staticmethod
    def size_bytes(n_port: int) -> int:
        """What a descriptor for so many ports must hold."""
        return _WORD * (1 + (PLANS + 1) * (1 + n_port * _RECORD_WORDS) + n_port * _COUNTERS)

    def publish(self, records: bytes, from_mono_ns: int) -> None:
        """Have a complete plan hold for frames sent from a moment on. One thread of the controller at a time."""
        number = self._words[_NEWEST] + 1
        with self._barrier:
            slot = self._slots[number % PLANS]
            self._words[slot] = from_mono_ns
            self._words[slot + 1 : slot + self._slot_words] = memoryview(records).cast("q")
        with self._barrier:
            self._words[_NEWEST] = number

    def state(self, port: int, sent_mono_ns: int) -> State:
        """What is commanded of a frame that was sent into a port at a moment. For the delay line."""
        words, slots = self._words, self._slots
        while True:
            number = words[_NEWEST]
            oldest = max(1, number - PLANS + 2)
            while number > oldest and words[slots[number % PLANS]] > sent_mono_ns:
                number -= 1
            at = _WORD * (slots[number % PLANS] + 1) + port * RECORD.size
            record: State = RECORD.unpack_from(self._map, at)
            if words[_NEWEST] <= number + PLANS - 2:
                return record

    def show_held(self) -> int:
        """Copy the newest plan, as the delay line sees it, to where `held` reads it. Its number."""
        words = self._words
        while True:
            number = words[_NEWEST]
            slot, held = self._slots[number % PLANS], self._slots[PLANS]
            words[held : held + self._slot_words] = words[slot : slot + self._slot_words]
            if words[_NEWEST] <= number + PLANS - 2:
                return number

    def held(self) -> bytes:
        """The records that `show_held` copied."""
        held = self._slots[PLANS]
        return self._words[held + 1 : held + self._slot_words].tobytes()

    def count(self, port: int, what: int) -> None:
        """Count one frame of a port. For the delay line, which alone writes counters."""
        self._words[self._counters + port * _COUNTERS + what] += 1

    def counters(self) -> bytes:
        """All that was counted: for each port LOST and DROPPED, as 64-bit integers."""
        return self._words[self._counters : self._end].tobytes()

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        self._words.release()
        self._map.close()
