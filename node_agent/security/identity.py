"""Who a node is to others: its key, which never leaves its store, and the run's certificate of it.

`credentials.pem` holds what is in use (the key, its signing request, its certificate and the authority's) in one file:
whenever the agent is killed, they belong together. `next.pem` holds a key and its request that wait for a certificate.

Keys are made and certificates proven by helpers of the node's first process (`init`), since what that takes would stay
in the agent's memory; the agent itself only reads these files.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from node_agent.errors import FailedPrecondition, InvalidArgument

ROLES: Final = ("satellite", "gateway", "terminal")
MAX_PEM_BYTES: Final = 16 * 1024

_IN_USE, _NEXT, _PROPOSED, _NEW = "credentials.pem", "next.pem", "proposed.pem", "new.pem"
_HANDSHAKE_TURNS = 3
_URI: Final = re.compile(
    rf"skyrack://(?P<run>[a-z0-9]+)/(?P<role>{'|'.join(ROLES)})/(?P<name>[a-z0-9_.-]+)"
    r"(?:\?jurisdiction=(?P<jurisdiction>[A-Z]{2}))?"
)


@dataclass(frozen=True)
class Identity:
    """Who this node is."""

    name: str
    role: str
    address: str
    jurisdiction: str = ""  # ISO 3166-1 alpha-2; empty: none
    restarts: int = 0  # how often its agent was started again


@dataclass(frozen=True)
class Subject:
    """Whom a certificate names."""

    name: str
    role: str
    jurisdiction: str  # ISO 3166-1 alpha-2; empty: none

    @classmethod
    def of(cls, uri: str) -> Subject | None:
        """From skyrack://RUN/ROLE/NODE, with ?jurisdiction=XX or not; None for any other."""
        found = _URI.fullmatch(uri)
        return cls(found["name"], found["role"], found["jurisdiction"] or "") if found else None


@dataclass(frozen=True)
class Held:
    """A key, with what belongs to it; all PEM, empty where there is none yet."""

    key_pem: bytes = field(repr=False)
    request_pem: bytes
    certificate_pem: bytes = b""
    authority_pem: bytes = b""


class Helpers(Protocol):
    """Do in processes of their own, for the agent, what this module's functions of the same names do.

    Raise OSError, with EINVAL for a ValueError, and TimeoutError.
    """

    async def make_key(self, folder: str, name: str) -> None:
        """Make the next key."""

    async def take_certificate(
        self, folder: str, name: str, role: str, certificate_pem: str, authority_pem: str
    ) -> None:
        """Prove a certificate, and put it to use."""


class Credentials:
    """A node's key and certificate, in a folder that is its alone. Of one event loop."""

    def __init__(self, folder: Path, identity: Identity, helpers: Helpers) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder, self._identity, self._helpers = folder, identity, helpers
        self._alone = asyncio.Lock()
        self._came = asyncio.Event()
        self.in_use: Held | None = None
        """What new connections have. Another thread may read it at any time."""
        self._look()

    async def wait(self) -> None:
        """Wait for the first certificate."""
        await self._came.wait()

    async def request(self, *, renew: bool) -> bytes:
        """The signing request, PEM, of the key in use; of a new key when asked for, or where there is none.

        Raises FailedPrecondition when no key can be made.
        """
        async with self._alone:
            held = None if renew else _read(self._folder / _IN_USE) or _read(self._folder / _NEXT)
            if held is None:
                try:
                    await self._helpers.make_key(str(self._folder), self._identity.name)
                except OSError as error:
                    raise FailedPrecondition(f"no key could be made: {error.strerror or error}") from error
                held = _read(self._folder / _NEXT)
        if held is None:
            raise FailedPrecondition(f"the new key of {self._identity.name} has gone from its store")
        return held.request_pem

    async def accept(self, certificate_pem: bytes, authority_pem: bytes) -> None:
        """Use a certificate, and the key that it is of, for all new connections. After: it is on disk, the key it takes
        the place of is not. Raises InvalidArgument, FailedPrecondition when it cannot be written."""
        for what, pem in (("certificate", certificate_pem), ("authority's certificate", authority_pem)):
            if len(pem) > MAX_PEM_BYTES or _blocks(pem, "CERTIFICATE") != [pem]:
                raise InvalidArgument(f"the {what} must be one certificate in PEM")
        name, role = self._identity.name, self._identity.role
        async with self._alone:
            try:
                await self._helpers.take_certificate(
                    str(self._folder), name, role, certificate_pem.decode(), authority_pem.decode()
                )
            except OSError as error:
                refusal = InvalidArgument if error.errno == errno.EINVAL else FailedPrecondition
                raise refusal(f"the certificate does not do for {name}: {error.strerror or error}") from error
            self._look()

    def _look(self) -> None:
        found = _read(self._folder / _IN_USE)
        if found is not None and found.certificate_pem:
            self.in_use = found
            self._came.set()


def make_key(folder: Path, name: str) -> None:
    """Make a key and a request to certify it (PKCS #10), as what comes next. For a process that ends soon after."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=True)
    pem = serialization.Encoding.PEM
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(folder / _NEW, key_pem + request.sign(key, hashes.SHA256()).public_bytes(pem))
    _put(folder / _NEW, folder / _NEXT)


def take_certificate(folder: Path, name: str, role: str, certificate_pem: bytes, authority_pem: bytes) -> None:
    """Put a certificate to use, with the key that it is of, if it does for this node. For a process that ends soon.

    Raises ValueError with why it does not, and OSError.
    """
    proposed = folder / _PROPOSED
    try:
        for source in (_NEXT, _IN_USE):
            held = _read(folder / source)
            if held is not None:
                _write(proposed, b"".join((held.key_pem, held.request_pem, certificate_pem, authority_pem)))
                if _is_of_key(proposed):
                    _prove(proposed, authority_pem, name, role)
                    _put(proposed, folder / _IN_USE)
                    (folder / _NEXT).unlink(missing_ok=True)
                    return
    finally:
        proposed.unlink(missing_ok=True)
    raise ValueError(f"it is not of a key of {name}")


def rehearse(folder: Path) -> None:
    """Make a key and prove a certificate of it, so that who is forked from here shares the memory that it takes."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    name, role = "rehearsal", ROLES[0]
    folder.mkdir()
    make_key(folder, name)
    key: Any = serialization.load_pem_private_key((folder / _NEXT).read_bytes(), password=None)
    names = [x509.DNSName(name), x509.UniformResourceIdentifier(f"skyrack://none/{role}/{name}")]
    now_utc = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        x509.Name([]), x509.Name([]), key.public_key(), 1, now_utc, now_utc + datetime.timedelta(1)
    )
    own = builder.add_extension(x509.SubjectAlternativeName(names), critical=True).sign(key, hashes.SHA256())
    pem = own.public_bytes(serialization.Encoding.PEM)
    take_certificate(folder, name, role, pem, pem)


def _prove(path: Path, authority_pem: bytes, name: str, role: str) -> None:
    """Have who trusts the authority greet who has the key and certificate of a file, all in memory.

    Raises ValueError if they do not come together, or the certificate names another.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        server.load_cert_chain(path)
        client.load_verify_locations(cadata=authority_pem.decode())
        seen = _seen_by(client, server, name)
    except ssl.SSLCertVerificationError as error:
        raise ValueError(error.verify_message) from error
    except ssl.SSLError as error:
        raise ValueError(str(error)) from error
    subjects = [Subject.of(value) for kind, value in seen.get("subjectAltName", ()) if kind == "URI"]
    if [(subject.name, subject.role) for subject in subjects if subject is not None] != [(name, role)]:
        raise ValueError(f"it does not name the {role} {name}")


def _seen_by(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> dict[str, Any]:
    """The server's certificate as a client sees it that trusts it as `name`. Raises ssl.SSLError if it does not."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks, answers = client.wrap_bio(down, up, server_hostname=name), server.wrap_bio(up, down, server_side=True)
    for _ in range(_HANDSHAKE_TURNS):
        for end in (asks, answers):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return asks.getpeercert() or {}


def _is_of_key(path: Path) -> bool:
    """Whether the key and the certificate in a file belong together."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
    except ssl.SSLError:
        return False
    return True


def _read(path: Path) -> Held | None:
    """What a file holds; None if it is not there, or damaged."""
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        return None
    keys, requests = _blocks(pem, "PRIVATE KEY"), _blocks(pem, "CERTIFICATE REQUEST")
    certificates = _blocks(pem, "CERTIFICATE") or [b"", b""]
    if len(keys) != 1 or len(requests) != 1 or len(certificates) != 2:
        return None
    return Held(keys[0], requests[0], certificates[0], certificates[1])


def _blocks(pem: bytes, label: str) -> list[bytes]:
    """RFC 7468."""
    mark = re.escape(label.encode())
    return re.findall(rb"-----BEGIN " + mark + rb"-----\n[A-Za-z0-9+/=\n]+-----END " + mark + rb"-----\n", pem)


def _write(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read, and sync it."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # on a full disk a single write may take a part, and say nothing
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _put(aside: Path, path: Path) -> None:
    """Have a file take the place of another, for good."""
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
