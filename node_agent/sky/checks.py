"""What the emulator says of the sky, looked at before it is believed: the clock above all is asked at every step."""

from __future__ import annotations

import math
from collections.abc import Iterator

from node_agent.errors import InvalidArgument
from protos.skyrack.v1 import node_pb2

MAX_SCALE = 1e6
"""A thousand times what a scenario may have."""

MAX_M = 1e12
"""Beyond the orbit of Jupiter."""


def check_sky(told: node_pb2.Sky) -> None:
    """Raises InvalidArgument for the first thing that cannot be."""
    for wrong in _wrong(told):
        raise InvalidArgument(wrong)


def _wrong(told: node_pb2.Sky) -> Iterator[str]:
    scale = told.clock.scale
    if not 0.0 <= scale <= MAX_SCALE:
        yield f"clock.scale = {scale} must be 0 (it stands) to {MAX_SCALE:g}"
    for number, contact in enumerate(told.contacts):
        if contact.start_emu_ns > contact.end_emu_ns:
            yield f"contacts[{number}] ends at {contact.end_emu_ns}, before it starts at {contact.start_emu_ns}"
        if contact.delay_us < 0 or contact.rate_bps < 0:
            yield f"contacts[{number}]: delay_us = {contact.delay_us}, rate_bps = {contact.rate_bps}; none is negative"
    known_emu_ns: int | None = None  # the time of the newest position
    for number, place in enumerate(told.places):
        if number and place.at_emu_ns < told.places[number - 1].at_emu_ns:
            yield f"places[{number}] at {place.at_emu_ns} comes before the one before it: they must be in order"
        if place.r_ecef_m:
            if len(place.r_ecef_m) != 3 or not all(abs(each) <= MAX_M for each in place.r_ecef_m):
                yield f"places[{number}].r_ecef_m must be three numbers up to {MAX_M:g}, or none"
            if place.at_emu_ns == known_emu_ns:
                yield f"places[{number}]: there are two positions at {place.at_emu_ns}"
            known_emu_ns = place.at_emu_ns
        if not math.isfinite(place.illumination_ratio):
            yield f"places[{number}].illumination_ratio = {place.illumination_ratio} is no number"
