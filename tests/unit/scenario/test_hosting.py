"""Images of the user's in the scenario file: who hosts them, with which part of a node, and what is wrong with them."""

from __future__ import annotations

import pytest

from controller.errors import InputError
from controller.scenario.model import Resources
from tests.unit.scenario.text import GOOD, changed, parsed

ON_GROUND = 'longitude_deg = 116.60\nimage = "registry.example:5000/a/b_c:1.2"\ncommand = ["x", "-y"]\n'


def test_who_hosts_what() -> None:
    """A ground node its own, of a constellation all satellites or those that are named; keys tell where it stands."""
    text = changed('name = "sat"', 'name = "sat"\nimage = "of-mine"\nimage_on = ["sat-p00s0*", "sat-p05s10"]')
    scenario = parsed(text.replace("longitude_deg = 116.60", ON_GROUND + 'environment = { A = "b=c" }'))
    assert set(scenario.hostings) == {*(f"sat-p00s{slot:02d}" for slot in range(10)), "sat-p05s10", "beijing"}
    beijing = scenario.hostings["beijing"]
    assert (beijing.image, beijing.command) == ("registry.example:5000/a/b_c:1.2", ("x", "-y"))
    assert beijing.environment == {"A": "b=c"}
    assert list(scenario.images) == ["constellation[0].image", "ground[0].image"]
    assert len(parsed(changed('name = "sat"', 'name = "sat"\nimage = "of-mine"')).hostings) == 66
    assert parsed(GOOD).hostings == {}


def test_a_host_is_halved() -> None:
    """Of memory, cores and processes one half is the agent's and its jobs'; other nodes have all of it."""
    scenario = parsed(changed("longitude_deg = 116.60", ON_GROUND))
    whole = Resources()
    half = scenario.resources_of("beijing")
    assert (half.memory_bytes, half.cpu_limit, half.pids_limit) == (256 * 1024 * 1024, 0.5, 64)
    assert half.store_bytes == whole.store_bytes
    assert scenario.resources_of("suva") == whole


@pytest.mark.parametrize(
    "image",
    ["alpine", "a.b__c-d/e:v1.2", "localhost/x", "r.example:5000/x@sha256:" + "0" * 64, "sha256:" + "a" * 64],
)
def test_names_of_images(image: str) -> None:
    """What Docker takes for one is one."""
    assert parsed(changed("116.60", f'116.60\nimage = "{image}"')).hostings["beijing"].image == image


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('image = "Big"', ["ground[0].image = 'Big'", 'such as "registry.example/name:tag"']),
        ('image = "a b"', ["ground[0].image = 'a b'"]),
        ('image = ""', ["ground[0].image = ''"]),
        ('image = "a:"', ["ground[0].image = 'a:'"]),
        ("image = 3", ["ground[0].image = 3", "must be text, in quotes"]),
        ('command = ["x"]', ["ground[0]", "are of an image: name one"]),
        ('image = "a"\ncommand = "x"', ["ground[0].command = 'x'", "must be a list"]),
        ('image = "a"\nenvironment = { SKYRACK_NODE = "x" }', ["ground[0].environment", "are skyrack's own"]),
        ('image = "a"\nenvironment = { "A=" = "x" }', ["ground[0].environment", "no name of a variable"]),
        ('image = "a"\nenvironment = { A = 1 }', ["ground[0].environment.A = 1", "must be text, in quotes"]),
    ],
)
def test_what_is_wrong_is_told(more: str, said: list[str]) -> None:
    """The key, the value, and what is right."""
    with pytest.raises(InputError) as told:
        parsed(changed("116.60", f"116.60\n{more}"))
    for part in said:
        assert part in str(told.value)


def test_what_is_wrong_between_tables_is_told() -> None:
    """Patterns that no satellite meets, a place for an image that there is not, and nodes that are too small."""
    with pytest.raises(InputError, match=r"constellation\[0\].image_on = \['x\*'\]: no satellite .* sat-p00s00"):
        parsed(changed('name = "sat"', 'name = "sat"\nimage = "a"\nimage_on = ["x*"]'))
    with pytest.raises(InputError, match="image_on says where an image runs"):
        parsed(changed('name = "sat"', 'name = "sat"\nimage_on = ["x*"]'))
    small = changed("116.60", '116.60\nimage = "a"') + "[resources]\nmemory_bytes = 100_000_000\npids_limit = 32\n"
    with pytest.raises(InputError) as told:
        parsed(small)
    assert "resources.memory_bytes = 100_000_000: must be at least 134_217_728 where nodes host" in str(told.value)
    assert "resources.pids_limit = 32: must be at least 64" in str(told.value)
