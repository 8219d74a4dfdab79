"""Files that are encrypted at rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.errors import DataLoss
from node_agent.objects.sealing import SEGMENT_BYTES, Keys, SealedFile, _derived, sealed_bytes, unsealed_bytes

KEY = bytes(range(32))
SIZES = st.one_of(
    st.integers(0, 3),
    st.integers(SEGMENT_BYTES - 2, SEGMENT_BYTES + 2),
    st.integers(3 * SEGMENT_BYTES - 2, 3 * SEGMENT_BYTES + 2),
)


@contextmanager
def opened(path: Path, size_bytes: int, name: str = "a", key: bytes = KEY) -> Iterator[SealedFile]:
    """A sealed file of that path."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield SealedFile(fd, name, size_bytes, key)
    finally:
        os.close(fd)


def sealed(path: Path, content: bytes, name: str = "a") -> None:
    """Write a sealed file."""
    with opened(path, len(content), name) as file:
        file.append([content])
        file.settle()


def test_key_derivation_is_rfc_5869() -> None:
    """HKDF of RFC 5869, appendix A.3 (SHA-256, no salt, no info), of whose output the first block is ours."""
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert _derived(b"\x0b" * 22, b"", b"").hex() == expected


@given(size_bytes=SIZES, data=st.data())
def test_any_range_is_read_back(tmp_path_factory: pytest.TempPathFactory, size_bytes: int, data: st.DataObject) -> None:
    """Whatever the size, however it is cut into chunks, each range is what was written, and none of it is legible."""
    content = os.urandom(size_bytes)
    path = tmp_path_factory.mktemp("sealed") / "file"
    with opened(path, size_bytes) as file:
        cuts = data.draw(st.lists(st.integers(0, size_bytes), max_size=4), label="cuts")
        for start, end in pairwise(sorted([0, *cuts, size_bytes])):
            file.append([content[start:end]])
        file.settle()
    assert path.stat().st_size == sealed_bytes(size_bytes)
    assert unsealed_bytes(sealed_bytes(size_bytes)) == size_bytes
    assert size_bytes < 16 or content[:16] not in path.read_bytes()
    with opened(path, size_bytes) as file:
        first = data.draw(st.integers(0, size_bytes), label="from")
        length = data.draw(st.integers(0, size_bytes - first), label="length")
        assert file.read(first, length) == content[first : first + length]


@given(size_bytes=SIZES, data=st.data())
def test_a_break_loses_nothing_that_was_settled(
    tmp_path_factory: pytest.TempPathFactory, size_bytes: int, data: st.DataObject
) -> None:
    """Written in two goes, with a break anywhere and a torn write after it: the first is there, the second goes on."""
    content = os.urandom(size_bytes)
    cut = data.draw(st.integers(0, size_bytes), label="cut")
    path = tmp_path_factory.mktemp("sealed") / "file"
    with opened(path, size_bytes) as file:
        file.append([content[:cut]])
        file.settle()
    assert unsealed_bytes(path.stat().st_size) == cut
    if cut % SEGMENT_BYTES == 0:
        with path.open("ab") as torn:
            torn.write(os.urandom(data.draw(st.integers(0, 100), label="torn")))
    with opened(path, size_bytes) as file:
        assert b"".join(file.kept()) == content[:cut]
        file.append([content[cut:]])
        file.settle()
    with opened(path, size_bytes) as file:
        assert file.read(0, size_bytes) == content


def test_every_record_has_a_nonce_of_its_own(tmp_path: Path) -> None:
    """The same segment, written twice with more in it the second time, is never encrypted with the same nonce."""
    nonces = set()
    for length in (10, 20, 30):
        with opened(tmp_path / "file", 100) as file:
            before = b"".join(file.kept())
            file.append([bytes(length - len(before))])
            file.settle()
        nonces.add((tmp_path / "file").read_bytes()[32:44])
    assert len(nonces) == 3


@pytest.mark.parametrize("where", [0, 31, 32, 43, 44, 1000, SEGMENT_BYTES + 70, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, where: int) -> None:
    """In the salt, a nonce, the bytes or a tag: reading its segment is DATA_LOSS, never other bytes."""
    path = tmp_path / "file"
    sealed(path, os.urandom(2 * SEGMENT_BYTES))
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with opened(path, 2 * SEGMENT_BYTES) as file, pytest.raises(DataLoss):
        file.read(0, 2 * SEGMENT_BYTES)


def test_swapped_cut_off_or_foreign_segments_are_noticed(tmp_path: Path) -> None:
    """Records in another order, missing at the end, or of another object, size or key, are DATA_LOSS."""
    record_bytes = SEGMENT_BYTES + 28
    one, two = tmp_path / "one", tmp_path / "two"
    sealed(one, os.urandom(2 * SEGMENT_BYTES), "one")
    sealed(two, os.urandom(2 * SEGMENT_BYTES), "two")
    salt, first, second = (one.read_bytes()[start:end] for start, end in (
        (0, 32), (32, 32 + record_bytes), (32 + record_bytes, 32 + 2 * record_bytes)
    ))  # fmt: skip
    foreign = two.read_bytes()[32 : 32 + record_bytes]
    for changed in (salt + second + first, salt + first, salt + first + second[:-1], salt + foreign + second):
        one.write_bytes(changed)
        with opened(one, 2 * SEGMENT_BYTES, "one") as file, pytest.raises(DataLoss):
            file.read(0, 2 * SEGMENT_BYTES)
    for size_bytes, name, key in ((SEGMENT_BYTES, "two", KEY), (2 * SEGMENT_BYTES, "two", bytes(32))):
        with opened(two, size_bytes, name, key) as file, pytest.raises(DataLoss):
            file.read(0, 1)
    with opened(two, 2 * SEGMENT_BYTES, "one") as file, pytest.raises(DataLoss):
        file.read(0, 1)


def test_keys_are_made_once_and_for_the_agent_alone(tmp_path: Path) -> None:
    """A key a jurisdiction, 32 bytes, in a file that only its owner reads; a key that has gone is said to have."""
    keys = Keys(tmp_path / "keys")
    assert (keys.made("CN"), keys.made("")) == ("CN", "none")
    assert len({keys.key("CN"), keys.key("none"), Keys(tmp_path / "keys").key("CN")}) == 2
    for path in (tmp_path / "keys").iterdir():
        assert (path.stat().st_size, path.stat().st_mode & 0o777) == (32, 0o600)
    keys.made("CN")
    (tmp_path / "keys" / "CN.key").unlink()
    with pytest.raises(DataLoss, match="has gone"):
        keys.key("CN")
