"""Messages from descriptors: with whatever values, some of them known to the agents, and mutations of them.

Nothing here knows a message by name: a new one is fuzzed because it is there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

MAX_DEPTH: Final = 4
MAX_REPEATED: Final = 20_000
MAX_DRAWN_BYTES: Final = 500_000
"""What one generator draws; then all is empty. A few long strings in lists of lists would fill the machine's memory."""

MAX_MUTATED_BYTES: Final = 200_000

_EACH_BYTES: Final = 200  # of a message in a list, besides what is in it

_INT_BITS: Final = {
    FieldDescriptor.TYPE_INT32: (32, True),
    FieldDescriptor.TYPE_SINT32: (32, True),
    FieldDescriptor.TYPE_SFIXED32: (32, True),
    FieldDescriptor.TYPE_ENUM: (32, True),
    FieldDescriptor.TYPE_INT64: (64, True),
    FieldDescriptor.TYPE_SINT64: (64, True),
    FieldDescriptor.TYPE_SFIXED64: (64, True),
    FieldDescriptor.TYPE_UINT32: (32, False),
    FieldDescriptor.TYPE_FIXED32: (32, False),
    FieldDescriptor.TYPE_UINT64: (64, False),
    FieldDescriptor.TYPE_FIXED64: (64, False),
}
_FLOATS: Final = (
    0.0, -0.0, 1.0, -1.0, 0.5, 1e-310, 1e9, 2.0**62, 1e300, -1e300, 1.8e308, math.inf, -math.inf, math.nan,
)  # fmt: skip
_NASTY: Final = (
    "", " ", ".", "..", "/", "../../x", "/etc/passwd", "a/b", "a\0b", "\0", "a\nb", "\r\n\r\n", "\x1b[31m", "%s%n%x",
    "'; DROP TABLE job; --", "\u202egnp", "e\u0301\u0301\u0301", "\U0010ffff", "\ufffe", "ﬀ", "İ", "x" * 64, "x" * 65,
    "a." * 300, "." * 300, "-" * 255, "-rf", "~", "$HOME", "*", "NaN", "null", "sha256:", "sha256:" + "0" * 63,
    "sha256:" + "F" * 64, "SHA256:" + "0" * 64, "sha256:" + "0" * 64 + "\n", "localhost", "127.0.0.1", "::1", "[::1]:1",
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """Names that the agents know, or might: what a message that is to get far speaks of."""

    jobs: tuple[str, ...]
    objects: tuple[str, ...]
    nodes: tuple[str, ...]
    jurisdictions: tuple[str, ...] = ("CN", "US", "BR")

    def for_field(self, name: str) -> tuple[str, ...]:
        """Those that fit a field, by the words of its name; all of them for a field that says nothing."""
        of_words = {
            "object": self.objects,
            "node": self.nodes,
            "holders": self.nodes,
            "peer": self.nodes,
            "return_to": self.nodes,
            "jurisdiction": self.jurisdictions,
            "id": self.jobs,
            "job": self.jobs,
        }
        found = [names for word, names in of_words.items() if word in name]
        return found[0] if found else (*self.jobs, *self.objects, *self.nodes, *self.jurisdictions)


class Generator:
    """Draws messages and mutates them."""

    def __init__(self, draw: random.Random, known: Known) -> None:
        self.draw = draw
        self._known = known
        self._left_bytes = MAX_DRAWN_BYTES

    # --- values ---

    def text(self, field_name: str) -> str:
        """A string for a field: mostly one that is known, else a nasty or a random one."""
        text = self._any_text(field_name)
        return text if self._spends(4 * len(text)) else ""

    def _any_text(self, field_name: str) -> str:
        draw = self.draw
        match draw.random():
            case chance if chance < 0.6:
                return draw.choice(self._known.for_field(field_name))
            case chance if chance < 0.85:
                return draw.choice(_NASTY)
            case chance if chance < 0.98:
                return "".join(chr(self._code_point()) for _ in range(draw.randrange(40)))
            case _:
                return draw.choice(_NASTY[8:]) * draw.choice((10, 1_000, 10_000))

    def data(self) -> bytes:
        """Some bytes."""
        size_bytes = self.draw.choice((0, 1, 3, 64, 1_000, 5_000, 100_000))
        return self.draw.randbytes(size_bytes) if self._spends(size_bytes) else b""

    def integer(self, bits: int, *, signed: bool) -> int:
        """A whole number, most often one at an edge."""
        least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        edges = (0, 1, 2, -1, 64, 1_000_000, 1 << 31, 1 << 53, 1 << 62, least, most, most - 1, least + 1)
        number = self.draw.choice((*edges, self.draw.randrange(least, most), self.draw.randrange(100)))
        return min(max(number, least), most)

    def real(self) -> float:
        """A number, most often one that is none."""
        return self.draw.choice((*_FLOATS, self.draw.uniform(-1e3, 1e3)))

    def _spends(self, size_bytes: int) -> bool:
        """Whether there is so much left; then it is taken."""
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True

    def _code_point(self) -> int:
        point = self.draw.choice((self.draw.randrange(128), self.draw.randrange(0x3000), self.draw.randrange(0x110000)))
        return point if not 0xD800 <= point < 0xE000 else 0x2F  # a message cannot hold half of a surrogate pair

    # --- messages ---

    def filled(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """A message of a type with random fields of random values."""
        message = message_factory.GetMessageClass(descriptor)()
        share = self.draw.choice((0.2, 0.7, 1.0))
        for field in descriptor.fields:
            if self.draw.random() < share:
                self._fill(message, field, depth)
        return message

    def with_changed_field(self, message: Message) -> Message:
        """A copy with one field, anywhere in it, emptied or of another value."""
        changed = type(message)()
        changed.CopyFrom(message)
        within: Any = changed
        for _ in range(self.draw.randrange(MAX_DEPTH)):
            inner = [value for field, value in within.ListFields() if _is_one_message(field)]
            inner += [value[0] for field, value in within.ListFields() if _is_message_list(field)]
            if not inner:
                break
            within = self.draw.choice(inner)
        if within.DESCRIPTOR.fields:
            field = self.draw.choice(within.DESCRIPTOR.fields)
            within.ClearField(field.name)
            if self.draw.random() < 0.85:
                self._fill(within, field, MAX_DEPTH - 2)
        return changed

    def grown(self, message: Message, size_bytes: int) -> bytes:
        """As bytes, with so much in one field, of its own or of a message in it, that it has about that size."""
        fields = [*_growing(message)]
        if not fields:
            return message.SerializeToString()
        within, field = self.draw.choice(fields)
        more_bytes = size_bytes - message.ByteSize() - 24  # lengths are told in up to five bytes each
        if not _is_list(field):
            data = b"x" * more_bytes if field.type == FieldDescriptor.TYPE_BYTES else "x" * more_bytes
            setattr(within, field.name, data)
        else:
            element_bytes = self.draw.choice((4, 100, more_bytes))  # what tells of it included, four at most
            text = "x" * (element_bytes - 4)
            element = text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
            getattr(within, field.name).extend([element] * (more_bytes // element_bytes))
        return message.SerializeToString()

    def _fill(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if not _is_list(field):
            self._set_one(message, field, depth)
            return
        many = MAX_REPEATED if field.type != FieldDescriptor.TYPE_MESSAGE else 300
        count = self.draw.choice((0, 1, 1, 2, 3, 5, 300 if self.draw.random() < 0.1 else 1))
        values = getattr(message, field.name)
        if _is_map(field):
            self._fill_map(values, field, count, depth)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth < MAX_DEPTH:
                values.extend(
                    self.filled(_type_of(field), depth + 1) for _ in range(count) if self._spends(_EACH_BYTES)
                )
        elif self.draw.random() < 0.01:
            value = self._scalar(field)
            each_bytes = 4 * len(value) + 1 if isinstance(value, str | bytes) else 10
            values.extend([value] * (many if self._spends(many * each_bytes) else 1))
        else:
            values.extend(self._scalar(field) for _ in range(count))

    def _fill_map(self, values: Any, field: FieldDescriptor, count: int, depth: int) -> None:
        key, value = (_type_of(field).fields_by_name[name] for name in ("key", "value"))
        for _ in range(count):
            if not self._spends(_EACH_BYTES):
                return
            if value.type == FieldDescriptor.TYPE_MESSAGE:
                values[self._scalar(key)].CopyFrom(self.filled(_type_of(value), depth + 1))
            else:
                values[self._scalar(key)] = self._scalar(value)

    def _set_one(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth < MAX_DEPTH:
                getattr(message, field.name).CopyFrom(self.filled(_type_of(field), depth + 1))
                getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, self._scalar(field))

    def _scalar(self, field: FieldDescriptor) -> Any:
        match field.type:
            case FieldDescriptor.TYPE_STRING:
                return self.text(field.name)
            case FieldDescriptor.TYPE_BYTES:
                return self.data()
            case FieldDescriptor.TYPE_BOOL:
                return self.draw.random() < 0.5
            case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
                return self.real()
            case FieldDescriptor.TYPE_ENUM:
                assert field.enum_type is not None
                numbers = [*field.enum_type.values_by_number]
                return self.draw.choice((*numbers, *numbers, max(numbers) + 1, -1, (1 << 31) - 1))
            case kind:
                bits, signed = _INT_BITS[kind]
                return self.integer(bits, signed=signed)

    # --- bytes ---

    def mutated(self, data: bytes) -> bytes:
        """The bytes with some of them flipped, cut, repeated, put in or replaced by others."""
        deeds: Sequence[Callable[[bytes, int], bytes]] = (
            lambda data, at: data[:at] + bytes([data[at] ^ 1 << self.draw.randrange(8)]) + data[at + 1 :],
            lambda data, at: data[:at] + bytes([self.draw.choice((0, 1, 0x7F, 0x80, 0xFF))]) + data[at + 1 :],
            lambda data, at: data[:at],
            lambda data, at: data[at:],
            lambda data, at: data[:at] + data[at : at + self.draw.randrange(1, 40)] * self.draw.randrange(2, 30),
            lambda data, at: data[:at] + self.draw.randbytes(self.draw.randrange(1, 12)) + data[at:],
            lambda data, at: data[:at] + data[self.draw.randrange(len(data)) :],
            lambda data, at: data[:at] + b"\xff" * 9 + b"\x01" + data[at:],  # the largest varint
        )
        for _ in range(self.draw.choice((1, 1, 2, 4, 10))):
            data = self.draw.choice(deeds)(data, self.draw.randrange(len(data))) if data else self.draw.randbytes(2)
        return data[:MAX_MUTATED_BYTES]

    def garbage(self) -> bytes:
        """Bytes that were never a message: random ones, and what a parser may dig into without end."""
        match self.draw.randrange(4):
            case 0:
                return b"\x0a" * self.draw.choice((1, 100, 5_000)) + self.data()
            case 1:
                return b"\x0b" * self.draw.choice((1, 99, 20_000))  # groups in groups
            case 2:
                nested = b""
                for _ in range(self.draw.choice((1, 30, 120))):
                    nested = b"\x0a" + _varint(len(nested)) + nested
                return nested
            case _:
                return self.data()


def parsed(descriptor: Descriptor, data: bytes) -> Message | None:
    """The message that an agent would read; None if it would read none."""
    try:
        return message_factory.GetMessageClass(descriptor).FromString(data)
    except DecodeError:
        return None


def _growing(message: Any) -> Iterator[tuple[Any, FieldDescriptor]]:
    """The fields of a message, and of those in it, that may hold anything long."""
    for field in message.DESCRIPTOR.fields:
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield message, field
    for field, value in message.ListFields():
        if _is_one_message(field):
            yield from _growing(value)
        elif _is_message_list(field):
            yield from _growing(value[0])


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _type_of(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None, f"{field.name} is of no message"
    return field.message_type


def _is_list(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _is_map(field: FieldDescriptor) -> bool:
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    return _is_list(field) and is_message and bool(_type_of(field).GetOptions().map_entry)


def _is_one_message(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_MESSAGE and not _is_list(field)


def _is_message_list(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_MESSAGE and _is_list(field) and not _is_map(field)
