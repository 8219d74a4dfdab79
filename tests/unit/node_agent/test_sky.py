"""What a node believes of the sky, and what it does not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from node_agent.errors import InvalidArgument
from node_agent.sky.checks import MAX_SCALE
from node_agent.sky.sky import Sky
from protos.skyrack.v1 import node_pb2
from protos.skyrack.v1.node_pb2 import Contact, NodeClock, Place

HERE = (7e6, 0.0, 0.0)


def place(at_emu_ns: int, *r_ecef_m: float, light: float = 1.0) -> Place:
    """A place at a time."""
    return Place(at_emu_ns=at_emu_ns, r_ecef_m=r_ecef_m, illumination_ratio=light)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (node_pb2.Sky(clock=NodeClock(scale=math.nan)), "clock.scale"),
        (node_pb2.Sky(clock=NodeClock(scale=math.inf)), "clock.scale"),
        (node_pb2.Sky(clock=NodeClock(scale=-1.0)), "clock.scale"),
        (node_pb2.Sky(clock=NodeClock(scale=2 * MAX_SCALE)), "clock.scale"),
        (node_pb2.Sky(contacts=[Contact(start_emu_ns=2, end_emu_ns=1)]), r"contacts\[0\] ends"),
        (node_pb2.Sky(contacts=[Contact(), Contact(delay_us=-1)]), r"contacts\[1\]: delay_us"),
        (node_pb2.Sky(contacts=[Contact(rate_bps=-1)]), "rate_bps"),
        (node_pb2.Sky(places=[place(2, *HERE), place(1)]), "in order"),
        (node_pb2.Sky(places=[place(1, *HERE), place(1), place(1, *HERE)]), "two positions"),
        (node_pb2.Sky(places=[place(1, 7e6, 0.0)]), "three numbers"),
        (node_pb2.Sky(places=[place(1, 7e6, math.nan, 0.0)]), "three numbers"),
        (node_pb2.Sky(places=[place(1, 1e300, 0.0, 0.0)]), "three numbers"),
        (node_pb2.Sky(places=[place(1, *HERE, light=math.inf)]), "illumination_ratio"),
    ],
)
def test_a_sky_that_cannot_be_is_refused(tmp_path: Path, told: node_pb2.Sky, words: str) -> None:
    """The first thing that is wrong is named, and what was known before is known still, on disk too."""
    before = node_pb2.Sky(clock=NodeClock(scale=1.0), places=[place(1, *HERE), place(1, light=0.0), place(2, *HERE)])
    sky = Sky(tmp_path / "sky")
    sky.tell(before)
    with pytest.raises(InvalidArgument, match=words):
        sky.tell(told)
    assert sky.told == before
    assert Sky(tmp_path / "sky").told == before


def test_a_file_that_says_what_cannot_be_is_nothing(tmp_path: Path) -> None:
    """An agent that finds a sky which was written when any was taken begins without one."""
    (tmp_path / "sky").write_bytes(node_pb2.Sky(clock=NodeClock(scale=math.nan)).SerializeToString())
    assert Sky(tmp_path / "sky").now_emu_ns is None


@pytest.mark.parametrize(("emu_ns", "bound"), [(2**63 - 1, 2**63 - 1), (-(2**63), -(2**63) + 1)])
def test_time_stays_within_what_can_be_written_down(tmp_path: Path, emu_ns: int, bound: int) -> None:
    """A clock that would go past the journal's and the wire's numbers stands at their end."""
    sky = Sky(tmp_path / "sky")
    sky.tell(node_pb2.Sky(clock=NodeClock(emu_ns=emu_ns, at_mono_ns=0 if emu_ns > 0 else 2**63 - 1, scale=MAX_SCALE)))
    assert sky.now_emu_ns == bound
