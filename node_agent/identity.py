"""Who a node is to others: its key, which never leaves its store, and the run's certificate of it.

`credentials.pem` holds what is in use (the key, its signing request, its certificate and the authority's) in one file:
whenever the agent is killed, they belong together. `next.pem` holds a key and its request that wait for a certificate.

A key is made in a process of its own, since what that takes would stay in the agent's memory: at the start a fork,
later `python -m node_agent.identity FOLDER NAME`. All else is done with what Python's own TLS can.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import re
import ssl
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node_agent.blocking import to_its_end
from node_agent.errors import FailedPrecondition, InvalidArgument
from node_agent.store import sync_folder

ROLES: Final = ("satellite", "gateway", "terminal")

_IN_USE, _NEXT, _PROPOSED, _NEW = "credentials.pem", "next.pem", "proposed.pem", "new.pem"
_MAKE_KEY_DEADLINE_S = 60.0
_MAX_PEM_BYTES = 16 * 1024
_HANDSHAKE_TURNS = 3
_URI: Final = re.compile(
    rf"skyrack://(?P<run>[a-z0-9]+)/(?P<role>{'|'.join(ROLES)})/(?P<name>[a-z0-9_.-]+)"
    r"(?:\?jurisdiction=(?P<jurisdiction>[A-Z]{2}))?"
)


class IdentityError(Exception):
    """The node has no key, and none can be made. Says where and why."""


@dataclass(frozen=True)
class Identity:
    """Who this node is."""

    name: str
    role: str
    address: str
    jurisdiction: str = ""  # where it lies; empty: nobody says
    restarts: int = 0  # of its agent, by the node's first process


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

    key_pem: bytes
    request_pem: bytes
    certificate_pem: bytes = b""
    authority_pem: bytes = b""
    subject: Subject | None = None


class Credentials:
    """A node's key and certificate, in a folder that is its alone. Of one event loop; `prepare` comes before."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder, self._identity = folder, identity
        self._alone = asyncio.Lock()
        self._came = asyncio.Event()
        self.in_use: Held | None = None
        """What new connections have. Another thread may read it at any time."""
        found = _read(folder / _IN_USE)
        if found is not None and found.certificate_pem:
            with suppress(InvalidArgument):  # it has expired, say: the controller will bring another
                self._use(_certified(folder / _IN_USE, found, identity))

    async def wait(self) -> None:
        """Wait for the first certificate."""
        await self._came.wait()

    async def request(self, *, renew: bool) -> bytes:
        """The signing request, PEM, of the key in use; of a new one when asked for, or where none is in use yet.

        Raises FailedPrecondition when no key can be made.
        """
        async with self._alone:
            if renew:
                await _make_key_apart(self._folder, self._identity.name)
            held = (None if renew else _read(self._folder / _IN_USE)) or _read(self._folder / _NEXT)
        if held is None:
            raise FailedPrecondition(f"the key of {self._identity.name} has gone from its store")
        return held.request_pem

    async def accept(self, certificate_pem: bytes, authority_pem: bytes) -> None:
        """Use a certificate, and the key that it is of, for all new connections. After: it is on disk, the key it takes
        the place of is not. Raises InvalidArgument."""
        for what, pem in (("certificate", certificate_pem), ("authority's certificate", authority_pem)):
            if len(pem) > _MAX_PEM_BYTES or _only_block(pem, "CERTIFICATE") is None:
                raise InvalidArgument(f"the {what} must be one certificate in PEM")
        async with self._alone:
            self._use(await to_its_end(self._take, certificate_pem, authority_pem))

    def _use(self, held: Held) -> None:
        self.in_use = held
        self._came.set()

    def _take(self, certificate_pem: bytes, authority_pem: bytes) -> Held:
        proposed = self._folder / _PROPOSED
        try:
            for name in (_NEXT, _IN_USE):
                key = _read(self._folder / name)
                if key is not None:
                    held = Held(key.key_pem, key.request_pem, certificate_pem, authority_pem)
                    _write(proposed, b"".join((key.key_pem, key.request_pem, certificate_pem, authority_pem)))
                    if _is_of_key(proposed):
                        held = _certified(proposed, held, self._identity)
                        proposed.replace(self._folder / _IN_USE)
                        sync_folder(self._folder)
                        (self._folder / _NEXT).unlink(missing_ok=name == _IN_USE)
                        return held
        finally:
            proposed.unlink(missing_ok=True)
        raise InvalidArgument(f"the certificate is not of a key of {self._identity.name}")


def prepare(folder: Path, name: str) -> None:
    """Have a key, at the agent's start: where there is none, one is made. Before anything has started a thread.

    Raises IdentityError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for half_done in (_PROPOSED, _NEW):
        (folder / half_done).unlink(missing_ok=True)
    if _read(folder / _IN_USE) is not None or _read(folder / _NEXT) is not None:
        return
    pid = os.fork()
    if not pid:
        status = 1
        try:
            make_key(folder, name)
            status = 0
        except Exception:  # noqa: BLE001 — whatever it is, it is told, and the fork ends here
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise IdentityError(f"no key for {name} could be made in {folder}")


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
    (folder / _NEW).replace(folder / _NEXT)
    sync_folder(folder)


def rehearse(folder: Path) -> None:
    """Make a key and prove a certificate of it once, so that who is forked from here shares the memory it takes."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    folder.mkdir()
    make_key(folder, "rehearsal")
    held = _read(folder / _NEXT)
    assert held is not None
    key: Any = serialization.load_pem_private_key(held.key_pem, password=None)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("rehearsal"), x509.UniformResourceIdentifier("skyrack://none/satellite/rehearsal")]
    )
    now = datetime.datetime.now(datetime.UTC)
    own = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1, now, now + datetime.timedelta(1))
    pem = own.add_extension(names, critical=True).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    _write(folder / _PROPOSED, held.key_pem + pem)
    _certified(
        folder / _PROPOSED, Held(held.key_pem, held.request_pem, pem, pem), Identity("rehearsal", "satellite", "")
    )


async def _make_key_apart(folder: Path, name: str) -> None:
    """As `make_key`, in a process of its own. Raises FailedPrecondition."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "node_agent.identity", str(folder), name, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), _MAKE_KEY_DEADLINE_S)
    except TimeoutError:
        said = f"not within {_MAKE_KEY_DEADLINE_S:.0f} s".encode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise FailedPrecondition(f"no key could be made: {''.join(said.decode(errors='replace').splitlines()[-1:])}")


def _certified(path: Path, held: Held, identity: Identity) -> Held:
    """What is held, with whom it names, if it does for this node: proven by a handshake with itself, in memory.

    `path` holds the key and the certificate. Raises InvalidArgument.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        server.load_cert_chain(path)
        client.load_verify_locations(cadata=held.authority_pem.decode())
        seen = _seen_by(client, server, identity.name)
    except ssl.SSLCertVerificationError as error:
        raise InvalidArgument(f"the certificate does not do for {identity.name}: {error.verify_message}") from None
    except (ssl.SSLError, ValueError) as error:
        raise InvalidArgument(f"the certificate does not do for {identity.name}: {error}") from None
    uris = [Subject.of(value) for kind, value in seen.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1 or uris[0] is None or (uris[0].name, uris[0].role) != (identity.name, identity.role):
        raise InvalidArgument(f"the certificate does not name the {identity.role} {identity.name}")
    return Held(held.key_pem, held.request_pem, held.certificate_pem, held.authority_pem, uris[0])


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


def _only_block(pem: bytes, label: str) -> bytes | None:
    blocks = _blocks(pem, label)
    return blocks[0] if len(blocks) == 1 and blocks[0] == pem else None


def _blocks(pem: bytes, label: str) -> list[bytes]:
    """RFC 7468."""
    mark = re.escape(label.encode())
    return re.findall(rb"-----BEGIN " + mark + rb"-----\n[A-Za-z0-9+/=\n]+-----END " + mark + rb"-----\n", pem)


def _write(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read, and sync it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    make_key(Path(sys.argv[1]), sys.argv[2])
