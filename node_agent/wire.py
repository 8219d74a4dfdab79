"""gRPC's settings, all of them, for both sides of the data plane, and its mutual TLS."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import grpc

from node_agent.identity import Credentials, Held

Options: TypeAlias = tuple[tuple[str, int], ...]

DATA_PORT: Final = 7070

# A contact may vanish without a word. So a client keeps a second connection beside the one that carries the data, asks
# on it for a sign of life every second, and gives up when one is two seconds late. (On the first connection the sign
# would stand in line behind megabytes in the sender's socket: on a slow link it would come late though all is well.)
_PULSE_EVERY_MS: Final = 1000
_PULSE_DEADLINE_MS: Final = 2000
# What remains when the pulse goes on and the data does not, and for servers, which nobody waits for.
_LAZY_EVERY_MS: Final = 10_000
_LAZY_DEADLINE_MS: Final = 30_000
_HANDSHAKE_DEADLINE_MS: Final = 10_000

PUT_ACCEPTED: Final = "skyrack-put-accepted"
"""In the initial metadata of a put's answer: the bytes may come. Without it the answer is there already."""

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""A job with full stdout and stderr and many outputs fits well; nothing larger is sent."""

HELLO_DEADLINE_S: Final = 2.0
"""For the first answer on a fresh channel, the TCP handshake included: the second SYN leaves after one second, and a
third would leave after three; it is better to start afresh."""

ANSWER_DEADLINE_S: Final = 20.0
"""For a short call on a channel that has answered: it may sync to a busy disk."""

STREAM_DEADLINE_S: Final = 3600.0
"""For a transfer or a watch; silence ends it much sooner, by the pulse."""

_CLIENT_OPTIONS: Final = (
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A channel is used for one contact: nothing of an older one, its back-off least of all, may be shared with it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)


def _pings(every_ms: int, deadline_ms: int) -> Options:
    # gRPC has two deadlines for a ping; the second is a minute unless told otherwise, and it is the one that counts.
    return (
        ("grpc.keepalive_time_ms", every_ms),
        ("grpc.keepalive_timeout_ms", deadline_ms),
        ("grpc.http2.ping_timeout_ms", deadline_ms),
    )


PULSE_OPTIONS: Final = (*_CLIENT_OPTIONS, *_pings(_PULSE_EVERY_MS, _PULSE_DEADLINE_MS))
DATA_OPTIONS: Final = (*_CLIENT_OPTIONS, *_pings(_LAZY_EVERY_MS, _LAZY_DEADLINE_MS))

SERVER_OPTIONS: Final = (
    *_pings(_LAZY_EVERY_MS, _LAZY_DEADLINE_MS),
    # Let the clients ping as often as they do, instead of telling them to calm down.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", _PULSE_EVERY_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
    # Who connects and says nothing is not waited for: a handshake takes three round trips.
    ("grpc.server_handshake_timeout_ms", _HANDSHAKE_DEADLINE_MS),
    # Two agents on one address are a mistake that must be heard of.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)


def server_credentials(credentials: Credentials) -> grpc.ServerCredentials:
    """Mutual TLS with what is in use at each handshake: connections that are open go on as they are."""
    given = _in_use(credentials)

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if credentials.in_use is given:
            return None  # the server goes on with what it has
        given = _in_use(credentials)
        return _configuration(given)

    fetch: Any = newest  # the stubs do not know of None
    return grpc.dynamic_ssl_server_credentials(_configuration(given), fetch, require_client_authentication=True)


def open_channel(credentials: Credentials, node: str, target: str, options: Options) -> grpc.aio.Channel:
    """A channel to a node, which must prove that it is the node. Raises LookupError before there is a certificate."""
    held = _in_use(credentials)
    proof = grpc.ssl_channel_credentials(held.authority_pem, held.key_pem, held.certificate_pem)
    return grpc.aio.secure_channel(target, proof, options=(*options, ("grpc.ssl_target_name_override", node)))


def _configuration(held: Held) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(held.key_pem, held.certificate_pem)], held.authority_pem)


def _in_use(credentials: Credentials) -> Held:
    if credentials.in_use is None:
        raise LookupError("there is no certificate yet")
    return credentials.in_use
