"""The choice of a shaper follows what the kernel can do, found out by trying."""

from __future__ import annotations

import pytest

from controller.errors import InputError, MachineError
from controller.fabric.choose import choose_shaper, panel_capabilities
from controller.fabric.namespaces import NAMED


def test_the_choice_follows_what_works_and_says_why() -> None:
    """auto takes netem where it works; where not, the delay line steps in, and the reason names what lacks."""
    works = {each.name: each.works for each in panel_capabilities()}
    chosen = choose_shaper("auto")
    if works["sch_netem"]:
        assert chosen.name == "netem"
        assert choose_shaper("netem") == ("netem", "asked for")
    else:
        assert chosen.name == "delay-line"
        assert "sch_netem" in chosen.reason
        with pytest.raises(MachineError, match=r"netem.*sch_netem"):
            choose_shaper("netem")
    assert choose_shaper("delay-line").name == "delay-line"


def test_an_unknown_shaper_is_wrong_input() -> None:
    """The message says what there is to choose from."""
    with pytest.raises(InputError, match="auto, netem, delay-line"):
        choose_shaper("tbf")


def test_trying_leaves_nothing_behind() -> None:
    """The scratch namespace has no name and ends with the trial."""
    before = set(NAMED.iterdir()) if NAMED.is_dir() else set()
    assert all(each.works for each in panel_capabilities() if each.name != "sch_netem")
    after = set(NAMED.iterdir()) if NAMED.is_dir() else set()
    assert after <= before
