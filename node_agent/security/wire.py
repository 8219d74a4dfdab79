"""gRPC's settings, all of them, for both sides of the data plane, and its mutual TLS."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import grpc

from node_agent.security.identity import Credentials, Held

Options: TypeAlias = tuple[tuple[str, int], ...]

DATA_PORT: Final = 7070

# A contact that vanishes without a word is noticed by its pulse (see contact). This is what remains when the pulse
# goes on and the data does not, and for servers, which nobody waits for. gRPC has two deadlines for a ping; the
# second is a minute unless told otherwise, and it is the one that counts.
_PING_EVERY_MS: Final = 10_000
_PING_DEADLINE_MS: Final = 30_000
_PINGS: Final = (
    ("grpc.keepalive_time_ms", _PING_EVERY_MS),
    ("grpc.keepalive_timeout_ms", _PING_DEADLINE_MS),
    ("grpc.http2.ping_timeout_ms", _PING_DEADLINE_MS),
    ("grpc.keepalive_permit_without_calls", 1),
)

WINDOW_BYTES: Final = 4 * 1024 * 1024
"""What may be on its way of a stream, or wait to be read: 335 Mbit/s at a round trip of 100 ms. It is open from the
first byte on, where a window that grows by measuring would cost round trips after each blackout; and it is bounded,
where on a busy machine such a one grows with the delays of the machine, and the agent's memory with it."""

_WRITE_BUFFER_BYTES: Final = 512 * 1024
"""A chunk is handed over while the one before it is still being sent."""

_STREAMS: Final = (
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.write_buffer_size", _WRITE_BUFFER_BYTES),
)

PUT_ACCEPTED: Final = "skyrack-put-accepted"
"""In the initial metadata of a put's answer: the bytes may come. Without it the answer is there already."""

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""A job with full stdout and stderr and many outputs fits well; nothing larger is sent."""

HELLO_DEADLINE_S: Final = 2.0
"""For the answer to a knock; and for the first one on a fresh channel, round trips not counted."""

ANSWER_DEADLINE_S: Final = 20.0
"""For a short call on a channel that has answered: it may sync to a busy disk."""

STREAM_DEADLINE_S: Final = 3600.0
"""For a transfer or a watch; silence ends it much sooner, by the pulse."""

CLIENT_OPTIONS: Final = (
    *_PINGS,
    *_STREAMS,
    ("grpc.http2.max_pings_without_data", 0),
    # A channel is used for one contact: nothing of an older one, its back-off least of all, may be shared with it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)


SERVER_OPTIONS: Final = (
    *_PINGS,
    *_STREAMS,
    # Let the clients ping as often as they do, instead of telling them to calm down.
    ("grpc.http2.max_ping_strikes", 0),
    # Who connects and says nothing is not waited for: a handshake takes a few round trips.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Two agents on one address are a mistake that must be heard of.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)


def look_after_grpc(on_lost_server: Callable[[BaseException], None]) -> None:
    """Hear what gRPC says to nobody but its log. For the start of a process.

    What it finds when callers have gone before the answer, or have headers that are no text, is logged in one line
    each: none of it is a defect, and a traceback for each would fill the log at the callers' pleasure. A server whose
    loop has ended by an error (gRPC 1.85: of one call whose path is no UTF-8) serves nobody any more, and is told of.
    """

    def heard(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, grpc.aio.InternalError | UnicodeDecodeError):
            record.msg, record.args = "gRPC, of a caller: %.200s", (str(error),)
            record.exc_info = record.exc_text = None
        elif isinstance(record.msg, BaseException):
            on_lost_server(record.msg)
        return True

    for name in ("grpc._cython.cygrpc", "asyncio"):
        logging.getLogger(name).addFilter(heard)


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
