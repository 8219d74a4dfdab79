"""What a load asks of the sky, on a preset whose contacts are known from the contact plan itself."""

from __future__ import annotations

import numpy as np
import pytest

from controller.planner import plan
from controller.scenario.load import load_scenario
from controller.timeline import LinkKind, Role, Timeline
from controller.workloads.sky_view import SkyView


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    """The sky of iridium-66."""
    return plan(load_scenario("iridium-66", 200.0))


def test_the_serving_satellite_is_the_one_it_is_linked_to(timeline: Timeline) -> None:
    """By the contact plan, at every tenth second."""
    view, names = SkyView(timeline), [node.name for node in timeline.nodes]
    contacts = timeline.contacts
    for t_s in np.arange(0.0, 199.0, 10.0):
        for ground in view.names(Role.GATEWAY):
            here = names.index(ground)
            now = (contacts.start_s < t_s - 1) & (t_s + 1 < contacts.end_s) & (contacts.kind == LinkKind.GSL)
            rows = np.flatnonzero(now & ((contacts.a == here) | (contacts.b == here)))
            served = {names[contacts.a[row] if contacts.b[row] == here else contacts.b[row]] for row in rows}
            if served:
                assert view.serving(ground, float(t_s)) in served


def test_the_nearest_is_nearest_and_a_gateway_is_nearest_to_itself(timeline: Timeline) -> None:
    """By straight lines; moments outside of the run are those of its ends."""
    view = SkyView(timeline)
    gateways = view.names(Role.GATEWAY)
    assert [view.nearest(name, gateways, 50.0) for name in gateways] == gateways
    assert view.nearest("reykjavik", gateways, 0.0) == "beijing"  # 7,900 km; Nairobi is 8,600 km away
    assert view.nearest("reykjavik", ["punta-arenas", "nairobi"], 0.0) == "nairobi"
    assert view.nearest("suva", ["nairobi", "punta-arenas"], 0.0) == "punta-arenas"
    assert view.nearest("suva", view.names(Role.SATELLITE), -5.0) == view.nearest(
        "suva", view.names(Role.SATELLITE), 0.0
    )
    assert view.serving("suva", 1e6) == view.serving("suva", view.span_s[1])


def test_hand_offs_are_contacts_that_begin_meanwhile(timeline: Timeline) -> None:
    """None within a contact; one over each begin of another; what is there at the start is no hand-off."""
    view, names = SkyView(timeline), [node.name for node in timeline.nodes]
    contacts, total = timeline.contacts, 0
    for ground in view.names(Role.GATEWAY):
        here = names.index(ground)
        own = (contacts.kind == LinkKind.GSL) & ((contacts.a == here) | (contacts.b == here))
        begins_s = sorted(float(at_s) for at_s in contacts.start_s[own] if at_s > 0)
        total += len(begins_s)
        assert view.hand_offs(ground, 0.0, 200.0) == len(begins_s)
        for begin_s in begins_s:
            assert view.hand_offs(ground, begin_s - 0.5, begin_s + 0.5) == 1
            assert view.hand_offs(ground, begin_s + 0.1, begin_s + 0.5) == 0
    assert total > 0, "this sky has hand-offs"
