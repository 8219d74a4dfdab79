"""Objects encrypted at rest: AES-256-GCM, segment by segment, under a key of the node's jurisdiction.

A sealed file is a salt, then a record a segment: nonce, ciphertext, tag. The object's own key is derived from the
jurisdiction's, the salt and its name (HKDF with SHA-256, RFC 5869). Every record is bound to the object's name, its
size and its own number: bytes that were changed, cut off, swapped or taken from another object are noticed when they
are read. A nonce is drawn for each write, never counted: a transfer that broke within a segment writes it again, with
more in it, and under a counted nonce those two would give each other away.

`cryptography` is imported when a key is first used: agents that encrypt nothing do not pay for it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from node_agent.errors import DataLoss
from node_agent.objects.stored_file import Stream, write_at

SEGMENT_BYTES: Final = 64 * 1024
NO_JURISDICTION: Final = "none"

_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_RECORD_BYTES: Final = _NONCE_BYTES + SEGMENT_BYTES + _TAG_BYTES


class Keys:
    """The node's keys, one a jurisdiction, each a file for the agent alone. Made here; they never leave."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def made(self, jurisdiction: str) -> str:
        """Have a key for a jurisdiction ("" is one, too). The key's name. Blocks. Raises OSError."""
        name = jurisdiction or NO_JURISDICTION
        path = self._path(name)
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside = path.with_suffix(".new")
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:  # on a full disk a single write may take a part, and say nothing
                file.write(os.urandom(_KEY_BYTES))
                file.flush()
                os.fsync(fd)
            aside.replace(path)
            folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder_fd)
            finally:
                os.close(folder_fd)
        return name

    def key(self, name: str) -> bytes:
        """A key. Blocks. Raises DataLoss when it has gone, and with it all that it encrypts."""
        key = b""
        with suppress(OSError):
            key = self._path(name).read_bytes()
        if len(key) != _KEY_BYTES:
            raise DataLoss(f"the key {self._path(name)} has gone, and all that is encrypted with it")
        return key

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.key"


def sealed_bytes(size_bytes: int) -> int:
    """How large a file so many bytes make."""
    segments = -(-size_bytes // SEGMENT_BYTES)
    return _SALT_BYTES + size_bytes + segments * (_NONCE_BYTES + _TAG_BYTES)


def unsealed_bytes(file_bytes: int) -> int:
    """How many bytes of an object such a file has, if it is all right."""
    full, rest_bytes = divmod(max(file_bytes - _SALT_BYTES, 0), _RECORD_BYTES)
    return full * SEGMENT_BYTES + max(rest_bytes - _NONCE_BYTES - _TAG_BYTES, 0)


class SealedFile:
    """A `StoredFile` that is encrypted."""

    def __init__(self, fd: int, name: str, size_bytes: int, key: bytes) -> None:
        """Open what is there, or begin. Blocks. Raises OSError."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._fd = fd
        self._stream = Stream(fd)
        self._name = name
        self._size_bytes = size_bytes
        self._open_segment = bytearray()  # the last one, as long as more may come into it
        self._segments = 0  # those that are full
        self._wrong: type[Exception] = InvalidTag
        salt = os.pread(fd, _SALT_BYTES, 0)
        if len(salt) < _SALT_BYTES:
            salt = os.urandom(_SALT_BYTES)
            os.ftruncate(fd, 0)
            write_at(fd, [salt], 0)
        self._cipher = AESGCM(_derived(key, salt, name.encode()))

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """So many bytes from there. Raises DataLoss."""
        if not length_bytes:
            return b""
        first, last = offset_bytes // SEGMENT_BYTES, (offset_bytes + length_bytes - 1) // SEGMENT_BYTES
        found = b"".join([self._segment(number) for number in range(first, last + 1)])
        self._stream.passed(_place_bytes(first))
        start_bytes = offset_bytes - first * SEGMENT_BYTES
        return found[start_bytes : start_bytes + length_bytes]

    def kept(self) -> Iterator[bytes]:
        """What a transfer that broke has left, from the start; a record that was cut short counts as not there."""
        while True:
            record = os.pread(self._fd, _RECORD_BYTES, _place_bytes(self._segments))
            try:
                segment = self._opened(record, self._segments)
            except DataLoss:
                os.ftruncate(self._fd, _place_bytes(self._segments))
                return
            yield segment
            if len(segment) < SEGMENT_BYTES:
                self._open_segment += segment
                return
            self._segments += 1

    def append(self, chunks: Sequence[bytes]) -> None:
        """Go on with these. Raises OSError."""
        before = bytes(self._open_segment), self._segments
        records = []
        for chunk in chunks:
            self._open_segment += chunk
            while len(self._open_segment) >= SEGMENT_BYTES:
                records.append(self._sealed(self._open_segment[:SEGMENT_BYTES], self._segments))
                del self._open_segment[:SEGMENT_BYTES]
                self._segments += 1
        try:
            write_at(self._fd, records, _place_bytes(before[1]))
            self._stream.passed(_place_bytes(self._segments))
        except OSError:
            self._open_segment[:], self._segments = before
            raise

    def settle(self) -> None:
        """Write the last segment as far as it has come, and cut off what a write that failed has left."""
        end_bytes = _place_bytes(self._segments)
        if self._open_segment:
            end_bytes += write_at(self._fd, [self._sealed(self._open_segment, self._segments)], end_bytes)
        os.ftruncate(self._fd, end_bytes)

    def forget(self) -> None:
        """Have the machine read from the disk."""
        self._stream.forget()

    def _segment(self, number: int) -> bytes:
        length_bytes = min(SEGMENT_BYTES, self._size_bytes - number * SEGMENT_BYTES)
        record = os.pread(self._fd, _NONCE_BYTES + length_bytes + _TAG_BYTES, _place_bytes(number))
        segment = self._opened(record, number)
        if len(segment) != length_bytes:
            raise DataLoss(f"segment {number} of its file is cut short")
        return segment

    def _sealed(self, segment: bytes | bytearray, number: int) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, bytes(segment), self._bound_to(number))

    def _opened(self, record: bytes, number: int) -> bytes:
        try:
            return self._cipher.decrypt(record[:_NONCE_BYTES], record[_NONCE_BYTES:], self._bound_to(number))
        except (self._wrong, ValueError):  # ValueError: too short for a nonce
            raise DataLoss(f"segment {number} of its file is not what was written") from None

    def _bound_to(self, number: int) -> bytes:
        return f"{self._name} {self._size_bytes} {number}".encode()


def _place_bytes(number: int) -> int:
    return _SALT_BYTES + number * _RECORD_BYTES


def _derived(key: bytes, salt: bytes, name: bytes) -> bytes:
    """RFC 5869, with one block of output."""
    extracted = hmac.digest(salt, key, hashlib.sha256)
    return hmac.digest(extracted, name + b"\x01", hashlib.sha256)
