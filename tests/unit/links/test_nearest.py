from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from controller.links.isl_access import IslView
from controller.links.nearest import IslHolds, Pools, nearest_holds
from controller.orbit.elements import walker_orbits
from controller.orbit.track import Track, track
from controller.scenario.link_model import IslPolicy
from controller.scenario.model import Walker
from controller.timeline import FloatArray

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LOW = Walker(pattern="delta", total=40, planes=5, phasing=1, altitude_m=550_000.0, inclination_deg=53.0)
HIGH = Walker(pattern="delta", total=3, planes=1, phasing=0, altitude_m=20_000_000.0, inclination_deg=0.0)


def line(*x_m: float) -> Track:
    """Satellites that stand still side by side, high above the Earth."""
    places_m = np.array([[20_000_000.0, x, 0.0] for x in x_m])
    return Track(EPOCH, -300.0, 100.0, np.repeat(places_m.T[None], 30, 0), np.full(len(x_m), np.inf), ("",) * len(x_m))


def pairs(holds: IslHolds) -> set[tuple[int, int]]:
    """Who is joined to whom."""
    return set(zip(holds.a.tolist(), holds.b.tolist(), strict=True))


def test_the_shortest_links_are_made_first() -> None:
    """On a line 0, 1, 3, 8 with one link each: 0-1 is the shortest; 3 and 8 are left to each other."""
    track_ = line(0.0, 1e5, 3e5, 8e5)
    found = nearest_holds(IslView(track_, track_, IslPolicy(), np.inf), Pools(1, 1), 0.0, 100.0, 20.0)
    assert pairs(found) == {(0, 1), (2, 3)}
    assert (found.start_s.tolist(), found.end_s.tolist()) == ([0.0, 0.0], [100.0, 100.0])


def test_a_reach_leaves_the_far_alone() -> None:
    """Beyond max_range_m nobody is joined."""
    track_ = line(0.0, 1e5, 3e5, 8e5)
    found = nearest_holds(IslView(track_, track_, IslPolicy(max_range_m=2.1e5), np.inf), Pools(2, 2), 0.0, 100.0, 20.0)
    assert pairs(found) == {(0, 1), (1, 2)}


def assert_ports_are_single(holds: IslHolds, is_one: bool, pools: Pools) -> None:
    """At any time each port of each satellite has one link at most, and there are no more ports than the pool's."""
    ends = [("a", a, p, s, e) for a, p, s, e in zip(holds.a, holds.port_a, holds.start_s, holds.end_s, strict=True)]
    side = "a" if is_one else "b"
    ends += [(side, b, p, s, e) for b, p, s, e in zip(holds.b, holds.port_b, holds.start_s, holds.end_s, strict=True)]
    ends.sort(key=lambda end: end[:4])
    for one, other in pairwise(ends):
        assert one[:3] != other[:3] or one[4] <= other[3]
    assert holds.port_a.max() < pools.a
    assert holds.port_b.max() < pools.b


def usable_always(view: IslView, holds: IslHolds, t_s: FloatArray) -> bool:
    """Whether every link is within sight at every instant that it is up."""
    a_m, b_m = view.track_a.teme(t_s).r_m, view.track_b.teme(t_s).r_m
    for a, b, start_s, end_s in zip(holds.a, holds.b, holds.start_s, holds.end_s, strict=True):
        during = (t_s >= start_s + 0.01) & (t_s <= end_s - 0.01)
        one, other = a_m[during, :, a], b_m[during, :, b]
        share = np.linspace(0.0, 1.0, 201)[:, None, None]
        lowest_m = np.linalg.norm(one + share * (other - one), axis=-1).min(initial=np.inf)
        if lowest_m < 6_378_137.0 + 80_000.0 - 10.0:
            return False
    return True


def test_changing_partners_of_one_constellation() -> None:
    """Over an orbit, each pairing holds at most k links a satellite, in sight all the while; partners do change."""
    track_ = track([""] * 40, walker_orbits(LOW, EPOCH), EPOCH, 0.0, 6_000.0)
    view = IslView(track_, track_, IslPolicy(topology="nearest-k", k=3, acquisition_s=10.0), np.inf)
    found = nearest_holds(view, Pools(3, 3), 0.0, 6_000.0, 20.0)
    assert_ports_are_single(found, True, Pools(3, 3))
    assert usable_always(view, found, np.arange(0.0, 6_000.0, 30.0))
    partners = Counter(
        len({b for a, b in pairs(found) if n == a} | {a for a, b in pairs(found) if n == b}) for n in range(40)
    )
    assert min(partners) > 3
    # What begins in the run begins after a pairing, or after a rise, and ten seconds of acquisition.
    begun_s = found.start_s[found.start_s > 0.0]
    assert np.mean(np.isclose(np.mod(begun_s, 60.0), 10.0)) > 0.5


def test_a_relay_serves_as_many_as_it_may() -> None:
    """Each of 40 low satellites seeks one of three relays, each relay serves up to eight at a time."""
    low = track([""] * 40, walker_orbits(LOW, EPOCH), EPOCH, 0.0, 3_000.0)
    high = track([""] * 3, walker_orbits(HIGH, EPOCH), EPOCH, 0.0, 3_000.0)
    view = IslView(low, high, IslPolicy(topology="nearest-k"), np.inf)
    found = nearest_holds(view, Pools(1, 8), 0.0, 3_000.0, 20.0)
    assert_ports_are_single(found, False, Pools(1, 8))
    assert usable_always(view, found, np.arange(0.0, 3_000.0, 30.0))
    for t_s in (10.0, 1_500.0, 2_990.0):
        up = (found.start_s <= t_s) & (found.end_s > t_s)
        assert max(Counter(found.a[up].tolist()).values()) == 1
        assert max(Counter(found.b[up].tolist()).values()) == 8
