from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings

from controller.errors import InputError
from controller.scenario import Source, load_scenario, parse_scenario, preset_names, preset_text
from tests.searches import examples
from tests.unit.scenario.text import GOOD, MUTATIONS, WALKER, changed, mutated, parsed


def test_the_preset_is_the_published_constellation() -> None:
    """iridium-66 has 66 satellites in 6 planes of 11, named by plane and slot, and five ground nodes after them."""
    scenario = load_scenario("iridium-66")
    names = scenario.node_names
    assert len(names) == 71
    assert (names[0], names[11], names[65]) == ("iridium-p00s00", "iridium-p01s00", "iridium-p05s10")
    assert names[66:] == ("beijing", "nairobi", "punta-arenas", "suva", "reykjavik")
    assert scenario.n_step == 301
    assert [(f.kind, f.target, f.at_s, f.duration_s) for f in scenario.faults] == [("blackout", "beijing", 60.0, 30.0)]


def test_every_preset_is_valid() -> None:
    """A preset that comes with skyrack loads, under its own name."""
    assert preset_names()
    for name in preset_names():
        assert load_scenario(name).name == name
        assert preset_text(name).startswith("#")


def test_a_file_loads_with_defaults(tmp_path: Path) -> None:
    """A file with the required keys alone is complete; epochs of any zone become UTC."""
    file = tmp_path / "mine.toml"
    file.write_text(changed("00:00:00Z", "08:00:00+08:00"))
    scenario = load_scenario(str(file))
    assert scenario.epoch == datetime(2026, 1, 1, tzinfo=UTC)
    assert scenario.constellations[0].isl.topology == "plus-grid"
    assert (scenario.constellations[0].isl_ports, scenario.constellations[0].max_gsl) == (4, 4)
    assert scenario.resources.pids_limit == 128
    assert scenario.label == str(file)


BAD = {
    "malformed TOML": (changed("duration_s = 60.0", "duration_s ="), ["trial.toml: not valid TOML", "line 3"]),
    "no zone": (changed("00:00:00Z", "00:00:00"), ["epoch = 2026-01-01 00:00:00", "write 2026-01-01T00:00:00Z"]),
    "quoted epoch": (changed("2026-01-01T00:00:00Z", '"2026-01-01T00:00:00Z"'), ["epoch", "without quotes"]),
    "epoch out of range": (changed("2026-", "2126-"), ["epoch", "1957 to 2056"]),
    "unknown key": (changed("step_s", "steps_s"), ["steps_s: unknown key; did you mean 'step_s'?"]),
    "unknown inner key": (
        changed("inclination_deg", "inclination"),
        ["constellation[0].walker.inclination: unknown key; did you mean 'inclination_deg'?", "it is required"],
    ),
    "step longer than the run": (changed("step_s = 10.0", "step_s = 61.0"), ["step_s = 61.0", "duration_s = 60.0"]),
    "no duration": (changed("duration_s = 60.0", "duration_s = 0"), ["duration_s = 0", "more than 0"]),
    "endless": (changed("duration_s = 60.0", "duration_s = inf"), ["duration_s = inf", "finite"]),
    "too many steps": (
        changed("duration_s = 60.0\nstep_s = 10.0", "duration_s = 2_600_000\nstep_s = 0.2"),
        ["step_s = 0.2", "13,000,001 steps", "a run may have 10,000,000", "lengthen step_s"],
    ),
    "too many nodes": (
        changed("total = 66, planes = 6, phasing = 2", "total = 99_999, planes = 1, phasing = 0"),
        ["100,001", "may have 100,000 nodes"],
    ),
    "beyond a month": (
        changed("step_s = 10.0", "step_s = 10.0\nstart_s = 2_678_350.0"),
        ["start_s = 2678350.0", "start_s + duration_s must be at most 2_678_400"],
    ),
    "uneven planes": (changed("planes = 6", "planes = 7"), ["constellation[0].walker.planes = 7", "total = 66"]),
    "phasing": (changed("phasing = 2", "phasing = 6"), ["constellation[0].walker.phasing = 6", "0 to planes - 1 = 5"]),
    "quoted number": (changed("780_000", '"780_000"'), ["walker.altitude_m = '780_000'", "without quotes"]),
    "pattern": (changed('"star"', '"ball"'), ["walker.pattern = 'ball'", "'star' or 'delta'"]),
    "no source": (
        changed(f"walker = {{ {WALKER} }}", ""),
        ["constellation[0]", "exactly one of walker, tle and omm, found none"],
    ),
    "missing omm": (changed(f"walker = {{ {WALKER} }}", 'omm = "no.json"'), ["constellation[0].omm", "no.json"]),
    "unknown kind of omm": (
        changed(f"walker = {{ {WALKER} }}", 'omm = "sets.kvn"'),
        ["constellation[0].omm = 'sets.kvn'", "ends in .json, .xml, .csv"],
    ),
    "limit on walker": (changed("[[ground]]", "limit = 3\n[[ground]]"), ["constellation[0]", "walker has total"]),
    "pool of plus-grid": (
        changed('name = "sat"', 'name = "sat"\nisl_ports = 3'),
        ["constellation[0].isl_ports = 3", "port pool is too small", '"plus-grid" needs at least 4'],
    ),
    "pool of ring": (
        changed('name = "sat"', 'name = "sat"\nisl = { topology = "ring" }\nisl_ports = 1'),
        ['"ring" needs at least 2'],
    ),
    "latitude": (changed("40.07", "90.5"), ["ground[0].latitude_deg = 90.5", "at least -90.0 and at most 90.0"]),
    "longitude": (changed("178.44", "180.5"), ["ground[1].longitude_deg = 180.5", "at most 180.0"]),
    "altitude": (changed("longitude_deg = 116.60", "longitude_deg = 0\naltitude_m = 40_000"), ["ground[0].altitude_m"]),
    "jurisdiction": (changed("116.60", '116.60\njurisdiction = "China"'), ["ground[0].jurisdiction", "country code"]),
    "jurisdiction of satellites": (
        changed('name = "sat"', 'name = "sat"\njurisdiction = "cn"'),
        ["constellation[0].jurisdiction = 'cn'", "country code"],
    ),
    "two grounds of one name": (
        changed('name = "suva"', 'name = "beijing"'),
        ["ground[1].name = 'beijing': already the name of ground[0]"],
    ),
    "ground named like a satellite": (
        changed('name = "suva"', 'name = "sat-p00s00"'),
        ["ground[1].name = 'sat-p00s00'", "satellite 0 of constellation[0]"],
    ),
    "two constellations of one name": (
        GOOD + f'[[constellation]]\nname = "sat"\nwalker = {{ {WALKER} }}\n',
        ["constellation[1].name = 'sat': already the name of constellation[0]"],
    ),
    "no constellation": (GOOD.split("[[constellation]]")[0], ["constellation: missing"]),
    "empty list": (GOOD.split("[[constellation]]")[0] + "constellation = []", ["constellation: needs at least 1"]),
    "single brackets": (changed("[[constellation]]", "[constellation]"), ["constellation: must be a list"]),
    "name": (changed('name = "trial"', 'name = "My Trial"'), ["name = 'My Trial'", "a-z, 0-9 and hyphen"]),
    "fault on nobody": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijin"\nat_s = 1\nduration_s = 1\n',
        ["fault[0].target = 'beijin'", "did you mean 'beijing'?"],
    ),
    "fault on a link of nobody": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijing~sat-p00s77"\nat_s = 1\nduration_s = 1\n',
        ["no node is called 'sat-p00s77'"],
    ),
    "fault between grounds": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijing~suva"\nat_s = 1\nduration_s = 1\n',
        ["fault[0].target = 'beijing~suva'", "no link joins these two"],
    ),
    "MTU below what IPv6 needs": (
        changed('name = "suva"', 'name = "suva"\nmtu_bytes = 1_279'),
        ["ground[1].mtu_bytes = 1279", "at least 1_280"],
    ),
    "MTU beyond jumbo frames": (
        GOOD + f'[[constellation]]\nname = "other"\nwalker = {{ {WALKER} }}\nisl = {{ mtu_bytes = 9_001 }}\n',
        ["constellation[1].isl.mtu_bytes = 9001", "at most 9_000"],
    ),
    "MTU in quotes": (
        changed('name = "suva"', 'name = "suva"\nmtu_bytes = "1500"'),
        ["ground[1].mtu_bytes = '1500'"],
    ),
    "degrade that does nothing": (
        GOOD + '[[fault]]\nkind = "degrade"\ntarget = "beijing"\nat_s = 1\nduration_s = 1\n',
        ["fault[0]", "needs extra_delay_s, rate_ratio or loss_ratio"],
    ),
    "degrade with a mode": (
        GOOD
        + '[[fault]]\nkind = "degrade"\ntarget = "beijing"\nat_s = 1\nduration_s = 1\nmode = "silent"\nrate_ratio = 1',
        ["fault[0]", "mode is of blackout and node-down"],
    ),
    "blackout of a rate": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijing"\nat_s = 1\nduration_s = 1\nrate_ratio = 0.5\n',
        ["fault[0]", "rate_ratio is of degrade, not of blackout"],
    ),
    "rate of nothing": (
        GOOD + '[[fault]]\nkind = "degrade"\ntarget = "beijing"\nat_s = 1\nduration_s = 1\nrate_ratio = 0.0\n',
        ["fault[0].rate_ratio = 0.0", "more than 0"],
    ),
    "node-down of a link": (
        GOOD + '[[fault]]\nkind = "node-down"\ntarget = "beijing~sat-p00s00"\nat_s = 1\nduration_s = 1\n',
        ["fault[0]", "a node-down has a node for its target"],
    ),
    "mode that is none": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijing"\nat_s = 1\nduration_s = 1\nmode = "loud"\n',
        ["fault[0].mode = 'loud'", "'silent', 'reject' or 'carrier'"],
    ),
    "fault at no time": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijing"\nduration_s = 1\n',
        ["fault[0]", "needs at_s", "or rate_per_hour"],
    ),
    "fault of nothing": (
        GOOD + '[[fault]]\nkind = "blackout"\nat_s = 1\nduration_s = 1\n',
        ["fault[0]", "exactly one of target and region, found none"],
    ),
    "fault of two places": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijing"\nat_s = 1\n'
        "region = { latitude_deg = 0, longitude_deg = 0, radius_m = 1_000 }\n",
        ["fault[0]", "exactly one of target and region, found both"],
    ),
    "fault again and again without an end": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijing"\nrate_per_hour = 2\n',
        ["fault[0]", "rate_per_hour needs duration_s"],
    ),
    "fault too often": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijing"\nrate_per_hour = 1_000\nduration_s = 1\n',
        ["fault[0].rate_per_hour = 1000", "more than 0", "at most 360"],
    ),
    "fault of a plane that is none": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "plane:sat-p06"\nat_s = 1\n',
        ["fault[0].target = 'plane:sat-p06'", "no Walker constellation has a plane 'sat-p06'", "did you mean 'sat-p0"],
    ),
    "fault of a region off the Earth": (
        GOOD + '[[fault]]\nkind = "blackout"\nat_s = 1\n'
        "region = { latitude_deg = 91, longitude_deg = 0, radius_m = 0 }\n",
        ["fault[0].region.latitude_deg = 91", "at most 90", "fault[0].region.radius_m = 0", "more than 0"],
    ),
    "fault of two links in one": (
        GOOD + '[[fault]]\nkind = "blackout"\ntarget = "beijing~suva~sat-p00s00"\nat_s = 1\n',
        ["fault[0].target = 'beijing~suva~sat-p00s00'", "must be the name of a node"],
    ),
    "fault of a kind that is none": (
        GOOD + '[[fault]]\nkind = "storm"\ntarget = "beijing"\nat_s = 1\nduration_s = 1\n',
        ["fault[0].kind = 'storm'", "'blackout', 'node-down' or 'degrade'"],
    ),
    "probe to nobody": (GOOD + '[[probe]]\na = "beijing"\nb = "nairobi"\n', ["probe[0].b = 'nairobi'"]),
    "probe to itself": (GOOD + '[[probe]]\na = "suva"\nb = "suva"\n', ["probe[0].b = 'suva'", "another node"]),
    "missing tle": (changed(f"walker = {{ {WALKER} }}", 'tle = "no.tle"'), ["constellation[0].tle", "no.tle"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_told_with_its_file_key_value_and_remedy(case: str) -> None:
    """Each bad input raises InputError, in which every line names the file, and the key, value and remedy are told."""
    text, words = BAD[case]
    with pytest.raises(InputError) as raised:
        parsed(text)
    message = str(raised.value)
    assert all(line.startswith("trial.toml: ") for line in message.splitlines())
    for word in words:
        assert word in message


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    """One message has a line for each mistake, and none that is only a consequence of another."""
    text = GOOD.replace("40.07", "95").replace('"terminal"', '"phone"').replace("planes = 6", "planes = 5")
    with pytest.raises(InputError) as raised:
        parsed(text)
    assert len(str(raised.value).splitlines()) == 3


def test_a_missing_file_names_the_presets(tmp_path: Path) -> None:
    """What is neither a file nor a preset is told so, with the nearest preset."""
    with pytest.raises(InputError, match="did you mean 'iridium-66'"):
        load_scenario("iridium66")
    with pytest.raises(InputError, match="no such scenario file"):
        load_scenario(str(tmp_path / "absent.toml"))


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    """A folder and a binary file are refused with their path."""
    with pytest.raises(InputError, match=str(tmp_path)):
        load_scenario(str(tmp_path))
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"a\.toml: not UTF-8"):
        load_scenario(str(tmp_path / "a.toml"))


def test_a_run_may_be_made_another_but_not_against_the_rules() -> None:
    """Duration, start and time scale in place of the file's are held to the same rules as the file's."""
    source = Source("trial.toml", GOOD, Path())
    other = parse_scenario(source, 20.0, start_s=3_600.0, time_scale=2.0)
    assert (other.n_step, other.start_s, other.time_scale) == (3, 3_600.0, 2.0)
    for duration_s in (5.0, -1.0, float("nan"), 1e9):
        with pytest.raises(InputError, match=r"trial\.toml: .*duration_s"):
            parse_scenario(source, duration_s)
    for start_s in (-1.0, float("inf"), 2_678_341.0):
        with pytest.raises(InputError, match=r"trial\.toml: start_s = "):
            parse_scenario(source, start_s=start_s)
    for time_scale in (0.0, 1e4):
        with pytest.raises(InputError, match=r"trial\.toml: time_scale = .*at least 0.01 and at most 1_000"):
            parse_scenario(source, time_scale=time_scale)


@settings(max_examples=examples(300), deadline=None)
@given(MUTATIONS)
def test_a_damaged_scenario_is_still_right_or_a_clear_error(mutations: list[tuple[int, str, int]]) -> None:
    """Whatever happens to a file, it loads or raises InputError: nothing else."""
    text = GOOD + '[[fault]]\nkind = "blackout"\ntarget = "suva"\nat_s = 1\nduration_s = 2\n'
    with suppress(InputError):
        parsed(mutated(text, mutations))


def test_every_node_has_the_jurisdiction_of_its_table() -> None:
    """Satellites have their constellation's, ground nodes their own; who has none is not named."""
    text = changed('name = "sat"', 'name = "sat"\njurisdiction = "US"').replace("116.60", '116.60\njurisdiction = "CN"')
    jurisdictions = parsed(text).jurisdictions
    assert len(jurisdictions) == 67
    assert (jurisdictions["sat-p05s10"], jurisdictions["beijing"], jurisdictions.get("suva")) == ("US", "CN", None)
