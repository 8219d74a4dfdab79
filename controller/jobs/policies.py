"""How one of the feasible nodes is chosen: each policy one small class, found by its name."""

from __future__ import annotations

from controller.errors import InputError
from controller.jobs.placement import Candidate, Estimate, Order, Policy, amount

_PLANE_WEIGHT = 1e-3


class _OverSatellites:
    """Policies choose among satellites: what a node on the ground shall run is given to it by name."""

    def refuses(self, candidate: Candidate, order: Order) -> str:
        """Nodes on the ground."""
        return "stands on the ground: name it with --on, or --pin-to" if candidate.is_ground else ""


class EarliestResult(_OverSatellites):
    """Where the result is back soonest, as the contact plan foresees it."""

    name = "earliest-result"

    def score(self, candidate: Candidate, estimate: Estimate, order: Order) -> float:
        """When it is back, in seconds since the epoch."""
        return estimate.result_at_s

    def words(self, score: float, estimate: Estimate) -> str:
        """When it is back."""
        return f"its result can be back at t = {score:.3f} s"


class DataLocal(_OverSatellites):
    """Where most of the inputs lie."""

    name = "data-local"

    def score(self, candidate: Candidate, estimate: Estimate, order: Order) -> float:
        """Bytes that must be moved."""
        return float(estimate.moved_bytes)

    def words(self, score: float, estimate: Estimate) -> str:
        """How much must be moved."""
        return f"{amount(score)} must be moved there" if score else "all that it needs is there"


class Spread(_OverSatellites):
    """Where the fewest jobs are open, and of those in the plane with the fewest."""

    name = "spread"

    def score(self, candidate: Candidate, estimate: Estimate, order: Order) -> float:
        """Open jobs, and a thousandth for each that is open in the plane."""
        return estimate.open_jobs + min(estimate.plane_jobs * _PLANE_WEIGHT, 1.0 - _PLANE_WEIGHT)

    def words(self, score: float, estimate: Estimate) -> str:
        """How many are open."""
        return f"{estimate.open_jobs} open jobs there, {estimate.plane_jobs} in its plane"


class Pinned:
    """The first feasible one of those that are named."""

    name = "pinned"

    def refuses(self, candidate: Candidate, order: Order) -> str:
        """All others."""
        return "" if candidate.name in order.pinned_to else "not one of those that it is pinned to"

    def score(self, candidate: Candidate, estimate: Estimate, order: Order) -> float:
        """Its place in the list."""
        return float(order.pinned_to.index(candidate.name))

    def words(self, score: float, estimate: Estimate) -> str:
        """Its place in the list."""
        return f"choice {score + 1:.0f} of those that it is pinned to"


POLICIES: dict[str, Policy] = {policy.name: policy for policy in (EarliestResult(), DataLocal(), Spread(), Pinned())}


def policy_named(name: str) -> Policy:
    """The policy of a name. Raises InputError, which says which there are."""
    if name not in POLICIES:
        raise InputError(f"there is no policy {name!r}: it must be one of {', '.join(POLICIES)}")
    return POLICIES[name]
