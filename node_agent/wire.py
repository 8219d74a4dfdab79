"""gRPC's settings, all of them, for both sides of the data plane."""

from __future__ import annotations

from typing import Final

DATA_PORT: Final = 7070

# A contact may vanish without a word: a client asks for a sign of life every second and gives up two seconds later.
_PING_EVERY_MS: Final = 1000
_PING_DEADLINE_MS: Final = 2000
# A server frees what a vanished client held; nobody waits for that, so it is no hurry.
_SERVER_PING_EVERY_MS: Final = 10_000
_SERVER_PING_DEADLINE_MS: Final = 10_000

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""A job with full stdout and stderr and many outputs fits well; nothing larger is sent."""

HELLO_DEADLINE_S: Final = 2.0
"""For the first call on a fresh channel, the TCP handshake included: the second SYN leaves after one second, and a
third would leave after three; it is better to start afresh."""

ANSWER_DEADLINE_S: Final = 20.0
"""For a short call on a channel that has answered: it may sync to a busy disk."""

STREAM_DEADLINE_S: Final = 3600.0
"""For a transfer or a watch; silence ends it much sooner, by the pings."""

CLIENT_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", _PING_EVERY_MS),
    # Two options for one deadline: gRPC stops the first when any data arrives, the second only when the ping is answered,
    # and its default is a minute.
    ("grpc.keepalive_timeout_ms", _PING_DEADLINE_MS),
    ("grpc.http2.ping_timeout_ms", _PING_DEADLINE_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A channel is used for one contact: nothing of an older one, its back-off least of all, may be shared with it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)

SERVER_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", _SERVER_PING_EVERY_MS),
    ("grpc.keepalive_timeout_ms", _SERVER_PING_DEADLINE_MS),
    ("grpc.http2.ping_timeout_ms", _SERVER_PING_DEADLINE_MS),
    # Let the clients ping as often as they do, instead of telling them to calm down.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", _PING_EVERY_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
    # Two agents on one address are a mistake that must be heard of.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
