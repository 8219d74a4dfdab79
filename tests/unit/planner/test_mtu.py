"""The largest packet of each link, from the scenario to the table of links."""

from __future__ import annotations

from controller.planner import survey
from controller.timeline import LinkKind
from tests.unit.scenario.text import WALKER, changed, parsed


def test_each_link_has_the_mtu_of_its_table() -> None:
    """Links between satellites take that of their policy, links of a ground node that node's, or 1,500."""
    text = changed(f"walker = {{ {WALKER} }}", f"walker = {{ {WALKER} }}\nisl = {{ mtu_bytes = 9_000 }}")
    text = text.replace('name = "beijing"', 'name = "beijing"\nmtu_bytes = 1_280')
    timeline = survey(parsed(text))
    links, names = timeline.links, [node.name for node in timeline.nodes]
    found = {
        ("isl" if kind == LinkKind.ISL else ({names[a], names[b]} & {"beijing", "suva"}).pop(), mtu_bytes)
        for a, b, kind, mtu_bytes in zip(links.a, links.b, links.kind, links.mtu_bytes.tolist(), strict=True)
    }
    assert found == {("isl", 9_000), ("beijing", 1_280), ("suva", 1_500)}
