"""Keys and certificates for tests: a run's authority, and who a client may be, or claim to be."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import grpc

from controller.authority import Authority, Subject
from node_agent.security.identity import make_key

RUN_ID = "testruna"


@dataclass(frozen=True)
class ClientIdentity:
    """What a client of the data plane shows, and whom it believes; all PEM."""

    key_pem: bytes
    certificate_pem: bytes
    authority_pem: bytes

    def channel(self, target: str, node: str) -> grpc.aio.Channel:
        """A channel to where a node is said to be."""
        proof = grpc.ssl_channel_credentials(self.authority_pem, self.key_pem, self.certificate_pem)
        options = (("grpc.ssl_target_name_override", node), ("grpc.use_local_subchannel_pool", 1))
        return grpc.aio.secure_channel(target, proof, options=options)


def identity(
    folder: Path,
    authority: Authority,
    name: str,
    role: str = "gateway",
    *,
    jurisdiction: str = "",
    at: datetime.timedelta = datetime.timedelta(),
) -> ClientIdentity:
    """A new key, certified as if so long after now."""
    folder.mkdir(exist_ok=True)
    make_key(folder, name)
    pem = (folder / "next.pem").read_bytes()
    end = pem.index(b"-----BEGIN CERTIFICATE REQUEST")
    subject = Subject(name, role, "127.0.0.1", jurisdiction)
    issued = authority.issue(pem[end:], subject, datetime.datetime.now(datetime.UTC) + at)
    return ClientIdentity(pem[:end], issued.certificate_pem, authority.pem)
