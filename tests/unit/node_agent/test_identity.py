"""A node's key and certificate on its disk: what is taken, what is refused, and what a kill leaves."""

from __future__ import annotations

import datetime
import os
import stat
from pathlib import Path

import pytest

from controller.authority import Authority, Subject
from node_agent.errors import FailedPrecondition, InvalidArgument
from node_agent.security.identity import Credentials, Identity, make_key, take_certificate
from node_agent.security.identity import Subject as Named

SAT = Identity("sat", "satellite", "10.64.0.1")
DAY = datetime.timedelta(days=1)


class InPlace:
    """The helpers of an agent, in its own process."""

    async def make_key(self, folder: str, name: str) -> None:
        """Make the next key."""
        make_key(Path(folder), name)

    async def take_certificate(
        self, folder: str, name: str, role: str, certificate_pem: str, authority_pem: str
    ) -> None:
        """Put a certificate to use; what is wrong of it is EINVAL."""
        try:
            take_certificate(Path(folder), name, role, certificate_pem.encode(), authority_pem.encode())
        except ValueError as error:
            raise OSError(22, str(error)) from error


class Broken(InPlace):
    """Helpers on a disk that is full."""

    async def make_key(self, folder: str, name: str) -> None:
        """Fail."""
        raise OSError(28, os.strerror(28))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The run's."""
    return Authority.of("q1w2e3r4", tmp_path / "authority")


def sign(
    authority: Authority, request_pem: bytes, role: str = "satellite", ago: datetime.timedelta = datetime.timedelta()
) -> bytes:
    """A certificate for the satellite "sat"."""
    now_utc = datetime.datetime.now(datetime.UTC) - ago
    return authority.issue(request_pem, Subject("sat", role, "10.64.0.1"), now_utc).certificate_pem


async def certified(folder: Path, authority: Authority) -> Credentials:
    """A node with a certificate."""
    credentials = Credentials(folder / "identity", SAT, InPlace())
    await credentials.accept(sign(authority, await credentials.request(renew=False)), authority.pem)
    return credentials


async def test_a_node_is_asked_makes_a_key_and_takes_its_certificate(tmp_path: Path, authority: Authority) -> None:
    """Before there is none; after, the next agent finds key and certificate; nobody else can read them."""
    credentials = Credentials(tmp_path / "identity", SAT, InPlace())
    assert credentials.in_use is None
    request_pem = await credentials.request(renew=False)
    assert await credentials.request(renew=False) == request_pem
    certificate_pem = sign(authority, request_pem)
    await credentials.accept(certificate_pem, authority.pem)
    await credentials.wait()
    assert await credentials.request(renew=False) == request_pem

    again = Credentials(tmp_path / "identity", SAT, InPlace())
    await again.wait()
    assert again.in_use == credentials.in_use
    assert again.in_use is not None
    assert (again.in_use.certificate_pem, again.in_use.authority_pem) == (certificate_pem, authority.pem)
    assert stat.S_IMODE((tmp_path / "identity").stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "identity").iterdir()} == {
        "credentials.pem": 0o600
    }


async def test_a_new_key_is_in_use_with_its_certificate_and_not_before(tmp_path: Path, authority: Authority) -> None:
    """Until the certificate of the new key comes, the old one does; then no file has the old one any more."""
    credentials = await certified(tmp_path, authority)
    before = credentials.in_use
    assert before is not None
    request_pem = await credentials.request(renew=True)
    assert credentials.in_use == before
    assert request_pem != before.request_pem
    assert Credentials(tmp_path / "identity", SAT, InPlace()).in_use == before  # killed in between, it has what it had

    await credentials.accept(sign(authority, request_pem), authority.pem)
    assert credentials.in_use is not None
    assert credentials.in_use.key_pem != before.key_pem
    assert not any(before.key_pem in path.read_bytes() for path in (tmp_path / "identity").iterdir())


async def test_the_key_in_use_can_be_certified_anew(tmp_path: Path, authority: Authority) -> None:
    """Another certificate of the same key takes the place of the first."""
    credentials = await certified(tmp_path, authority)
    before = credentials.in_use
    assert before is not None
    await credentials.accept(sign(authority, await credentials.request(renew=False)), authority.pem)
    assert credentials.in_use is not None
    assert credentials.in_use.key_pem == before.key_pem
    assert credentials.in_use.certificate_pem != before.certificate_pem


async def test_a_certificate_that_does_not_do_changes_nothing(tmp_path: Path, authority: Authority) -> None:
    """Of another key, another role, another authority, expired, not yet valid, or none at all: refused with why."""
    credentials = await certified(tmp_path, authority)
    before = credentials.in_use
    files = {path: path.read_bytes() for path in (tmp_path / "identity").iterdir()}
    request_pem = await credentials.request(renew=False)
    other = Credentials(tmp_path / "other", SAT, InPlace())
    stranger = Authority.of("q1w2e3r4", tmp_path / "stranger")
    refused = [
        (sign(authority, await other.request(renew=False)), authority.pem, "not of a key of sat"),
        (sign(authority, request_pem, "gateway"), authority.pem, "does not name the satellite sat"),
        (sign(authority, request_pem), stranger.pem, "certificate"),
        (sign(authority, request_pem, ago=2 * DAY), authority.pem, "expired"),
        (sign(authority, request_pem, ago=-DAY), authority.pem, "not yet valid"),
        (b"", authority.pem, "must be one certificate in PEM"),
        (sign(authority, request_pem) * 2, authority.pem, "must be one certificate in PEM"),
        (
            sign(authority, request_pem),
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "does not do",
        ),
    ]
    for certificate_pem, authority_pem, why in refused:
        with pytest.raises(InvalidArgument, match=why):
            await credentials.accept(certificate_pem, authority_pem)
        assert credentials.in_use == before
        assert {path: path.read_bytes() for path in (tmp_path / "identity").iterdir()} == files


async def test_a_certificate_of_another_node_is_refused(tmp_path: Path, authority: Authority) -> None:
    """The key is the node's, the authority the run's, but it names another."""
    credentials = Credentials(tmp_path / "identity", SAT, InPlace())
    make_key(tmp_path / "identity", "moon")
    request_pem = await credentials.request(renew=False)
    subject = Subject("moon", "satellite", "10.64.0.1")
    issued = authority.issue(request_pem, subject, datetime.datetime.now(datetime.UTC))
    with pytest.raises(InvalidArgument, match="sat"):
        await credentials.accept(issued.certificate_pem, authority.pem)
    assert credentials.in_use is None


@pytest.mark.parametrize("left_bytes", [0, 100, 300, -1])
async def test_a_damaged_file_is_none(tmp_path: Path, authority: Authority, left_bytes: int) -> None:
    """Of what is cut short nothing is used; a new key is made."""
    before = (await certified(tmp_path, authority)).in_use
    path = tmp_path / "identity" / "credentials.pem"
    path.write_bytes(path.read_bytes()[:left_bytes])
    credentials = Credentials(tmp_path / "identity", SAT, InPlace())
    assert credentials.in_use is None
    await credentials.accept(sign(authority, await credentials.request(renew=False)), authority.pem)
    assert credentials.in_use is not None
    assert before is not None
    assert credentials.in_use.key_pem != before.key_pem


async def test_a_key_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A full disk: the caller hears of it."""
    with pytest.raises(FailedPrecondition, match="No space left"):
        await Credentials(tmp_path / "identity", SAT, Broken()).request(renew=False)


@pytest.mark.parametrize(
    ("uri", "subject"),
    [
        ("skyrack://q1w2e3r4/gateway/beijing?jurisdiction=CN", Named("beijing", "gateway", "CN")),
        ("skyrack://q1w2e3r4/satellite/iridium-p00s01", Named("iridium-p00s01", "satellite", "")),
        ("skyrack://q1w2e3r4/emulator/x", None),
        ("skyrack://q1w2e3r4/gateway/", None),
        ("skyrack://q1w2e3r4/gateway/a/b", None),
        ("skyrack://q1w2e3r4/gateway/a?jurisdiction=", None),
        ("skyrack://q1w2e3r4/gateway/a\n", None),
        ("spiffe://q1w2e3r4/gateway/a", None),
        ("", None),
    ],
)
def test_a_name_is_read_whole_or_not_at_all(uri: str, subject: Named | None) -> None:
    """Nothing that is nearly a name is one."""
    assert Named.of(uri) == subject
