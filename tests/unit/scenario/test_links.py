from __future__ import annotations

from pathlib import Path

import pytest

from controller.errors import InputError
from controller.scenario import Scenario
from tests.unit.scenario import vanguard
from tests.unit.scenario.text import GOOD, WALKER, changed, parsed

RELAY = """
[[constellation]]
name = "relay"
walker = { pattern = "delta", total = 3, planes = 1, phasing = 0, altitude_m = 35_786_000, inclination_deg = 0.0 }
isl = { topology = "ring" }
"""
RADIO = "{ frequency_hz = 12e9, bandwidth_hz = 250e6, eirp_dbw = 30.0, g_t_db_k = 8.0 }"
OPTICAL = "{ power_w = 1.0, transmit_aperture_m = 0.1, receive_aperture_m = 0.1, max_rate_bps = 100_000_000_000 }"


def with_isl(table: str, more: str = "") -> str:
    """The right file with a policy for its links between satellites."""
    return changed(f"walker = {{ {WALKER} }}", f"walker = {{ {WALKER} }}\nisl = {{ {table} }}\n{more}")


def with_ground(lines: str) -> str:
    """The right file, its first ground node with more keys."""
    return changed("longitude_deg = 116.60", f"longitude_deg = 116.60\n{lines}")


def with_relay(lines: str) -> str:
    """The right file with a second constellation, and links between the two."""
    return f'{GOOD}{RELAY}[[isl]]\nbetween = ["sat", "relay"]\n{lines}\n'


def ports(scenario: Scenario) -> tuple[int, ...]:
    """The pools of ISL ports, constellation by constellation."""
    return tuple(constellation.isl_ports for constellation in scenario.constellations)


def test_the_pool_of_ports_grows_with_what_the_topology_needs() -> None:
    """Where none is given it is 4, or more if the busiest satellite has more links; what is given stays."""
    star = ", ".join(f'["sat-p00s00", "sat-p01s{i:02d}"]' for i in range(6))
    assert ports(parsed(GOOD)) == (4,)
    assert ports(parsed(with_isl('topology = "none"'))) == (4,)
    assert ports(parsed(with_isl('topology = "nearest-k", k = 3'))) == (4,)
    assert ports(parsed(with_isl('topology = "nearest-k", k = 7'))) == (7,)
    assert ports(parsed(with_isl(f'topology = "pairs", pairs = [{star}]'))) == (6,)
    assert ports(parsed(with_isl('topology = "ring"', "isl_ports = 2"))) == (2,)


def test_what_moves_what_hides_and_what_rains_is_read() -> None:
    """Waypoints, a horizon profile, overlap, budgets and rain have the types that the planner takes."""
    lines = (
        "waypoints = [{ at_s = 30.0, latitude_deg = -90, longitude_deg = 180 }, "
        "{ at_s = 60, latitude_deg = 90.0, longitude_deg = -180.0, altitude_m = 11_000 }]\n"
        "horizon_deg = [[0, 5.0], [90.0, 12], [359.9, 5.0]]\nantennas = 2\noverlap_s = 2.0\n"
        f"radio = {RADIO}\nrain = {{ r001_mm_h = 40.0 }}"
    )
    ground = parsed(with_ground(lines)).grounds[0]
    assert [(w.at_s, w.longitude_deg, w.altitude_m) for w in ground.waypoints] == [(30, 180, 0), (60, -180, 11_000)]
    assert ground.horizon_deg == ((0.0, 5.0), (90.0, 12.0), (359.9, 5.0))
    assert ground.radio is not None
    assert ground.rain is not None
    assert parsed(with_isl(f"optical = {OPTICAL}")).constellations[0].isl.optical is not None


@pytest.mark.parametrize(
    ("latitude", "longitude"), [("90", "0"), ("-90.0", "180"), ("0.0", "180.0"), ("0.0", "-180.0")]
)
def test_a_ground_node_may_stand_at_a_pole_or_on_the_antimeridian(latitude: str, longitude: str) -> None:
    """The edges of latitude and longitude are places like any other."""
    text = GOOD.replace("40.07", latitude).replace("116.60", longitude)
    assert abs(parsed(text).grounds[0].latitude_deg) in (0.0, 90.0)


def test_links_between_constellations_are_read() -> None:
    """[[isl]] joins two constellations by distance or by pairs, the first's satellite first."""
    (isl,) = parsed(with_relay("k = 2\nserves = 8\nrate_bps = 1_000_000")).cross_isls
    assert (isl.topology, isl.between, isl.k, isl.serves) == ("nearest-k", ("sat", "relay"), 2, 8)
    (isl,) = parsed(with_relay('topology = "pairs"\npairs = [["sat-p00s00", "relay-p00s02"]]')).cross_isls
    assert isl.pairs == (("sat-p00s00", "relay-p00s02"),)


NO_SUCH_PAIR = 'topology = "pairs", pairs = [["sat-p00s00", "sat-p00s01"], ["sat-p00s00", "sat-p00s022"]]'
BAD = {
    "waypoints in disorder": (
        with_ground(
            "waypoints = [{ at_s = 9, latitude_deg = 0, longitude_deg = 0 }, "
            "{ at_s = 9, latitude_deg = 1, longitude_deg = 0 }]"
        ),
        ["ground[0].waypoints: at_s = 9", "times must increase"],
    ),
    "waypoint off the Earth": (
        with_ground("waypoints = [{ at_s = 9, latitude_deg = 91, longitude_deg = 0 }]"),
        ["ground[0].waypoints[0].latitude_deg = 91", "at most 90.0"],
    ),
    "waypoint of another kind": (with_ground("waypoints = [[1, 2]]"), ["ground[0].waypoints[0]: must be a table"]),
    "azimuth": (with_ground("horizon_deg = [[360, 5]]"), ["ground[0].horizon_deg[0]", "0 to below 360"]),
    "elevation": (with_ground("horizon_deg = [[3, 90]]"), ["ground[0].horizon_deg[0]", "0 to below 90"]),
    "azimuths in disorder": (
        with_ground("horizon_deg = [[9, 5], [3, 5]]"),
        ["ground[0].horizon_deg", "azimuth 3", "after 9", "azimuths must increase"],
    ),
    "horizon of numbers": (with_ground("horizon_deg = [5.0]"), ["ground[0].horizon_deg[0] = 5.0: must be a list"]),
    "horizon of three": (with_ground("horizon_deg = [[1, 2, 3]]"), ["ground[0].horizon_deg[0]", "at most 2"]),
    "horizon of one": (with_ground("horizon_deg = [[1]]"), ["ground[0].horizon_deg[0][1]: missing"]),
    "one antenna": (with_ground("overlap_s = 1.0"), ["ground[0].overlap_s = 1.0", "antennas = 2 at least"]),
    "rain on a fixed rate": (
        with_ground("rain = { r001_mm_h = 40.0 }"),
        ["ground[0].rain: needs a radio budget beside it"],
    ),
    "rain too often": (
        with_ground(f"radio = {RADIO}\nrain = {{ r001_mm_h = 40.0, probability_ratio = 0.5 }}"),
        ["ground[0].rain.probability_ratio = 0.5", "at most 0.05"],
    ),
    "handover": (with_ground('handover = "random"'), ["ground[0].handover = 'random'", "'longest', 'highest'"]),
    "two budgets": (
        with_isl(f"optical = {OPTICAL}, radio = {RADIO}"),
        ["constellation[0].isl: has an optical and a radio budget: leave one out"],
    ),
    "half a budget": (with_isl("optical = { power_w = 1.0 }"), ["isl.optical.max_rate_bps: missing"]),
    "pairs without pairs": (with_isl('topology = "pairs"'), ["constellation[0].isl", "needs pairs"]),
    "pairs of a grid": (
        with_isl('pairs = [["sat-p00s00", "sat-p00s01"]]'),
        ["constellation[0].isl", 'pairs is of topology "pairs", not of "plus-grid"'],
    ),
    "k of a grid": (with_isl("k = 3"), ['k is of topology "nearest-k", not of "plus-grid"']),
    "pair of one": (
        with_isl('topology = "pairs", pairs = [["sat-p00s00", "sat-p00s00"]]'),
        ["constellation[0].isl.pairs", "'sat-p00s00' is paired with itself"],
    ),
    "pair twice": (
        with_isl('topology = "pairs", pairs = [["sat-p00s00", "sat-p00s01"], ["sat-p00s01", "sat-p00s00"]]'),
        ["constellation[0].isl.pairs", "are a pair twice"],
    ),
    "pair with nobody": (
        with_isl(NO_SUCH_PAIR),
        ["constellation[0].isl.pairs[1]: no satellite of 'sat' is called 'sat-p00s022'; did you mean 'sat-p00s02'?"],
    ),
    "pool of nearest-k": (
        with_isl('topology = "nearest-k", k = 5', "isl_ports = 4"),
        ["constellation[0].isl_ports = 4: the port pool is too small", '"nearest-k" needs at least 5'],
    ),
    "pool of pairs": (
        with_isl('topology = "pairs", pairs = [["sat-p00s00", "sat-p00s01"]]', "isl_ports = 0"),
        ['"pairs" needs at least 1'],
    ),
    "too many neighbours": (with_isl('topology = "nearest-k", k = 17'), ["isl.k = 17", "at most 16"]),
    "between one": (with_relay("").replace('"relay"]', '"sat"]'), ["isl[0].between", "two constellations"]),
    "between nobody": (
        with_relay("").replace('"relay"]', '"relais"]'),
        ["isl[0].between[1] = 'relais': no constellation is called so; did you mean 'relay'?"],
    ),
    "between three": (with_relay("").replace('"relay"]', '"relay", "x"]'), ["isl[0].between"]),
    "grid between two": (with_relay('topology = "plus-grid"'), ["isl[0].topology = 'plus-grid'", "'nearest-k' or"]),
    "pair the wrong way round": (
        with_relay('topology = "pairs"\npairs = [["relay-p00s02", "sat-p00s00"]]'),
        ["isl[0].pairs[0]: no satellite of 'sat' is called 'relay-p00s02'", "of 'relay' is called 'sat-p00s00'"],
    ),
    "serves by pairs": (
        with_relay('topology = "pairs"\npairs = [["sat-p00s00", "relay-p00s02"]]\nserves = 2'),
        ['serves is of topology "nearest-k", not of "pairs"'],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_about_links_is_told_with_key_value_and_remedy(case: str) -> None:
    """Each raises InputError, in which every line names the file, and the key, value and remedy are told."""
    text, words = BAD[case]
    with pytest.raises(InputError) as raised:
        parsed(text)
    message = str(raised.value)
    assert all(line.startswith("trial.toml: ") for line in message.splitlines())
    for word in words:
        assert word in message


def test_many_pairs_with_nobody_are_counted() -> None:
    """A list of names that are all wrong gives a few lines, not a screen."""
    pairs = ", ".join(f'["x{i}", "y{i}"]' for i in range(50))
    with pytest.raises(InputError) as raised:
        parsed(with_isl(f'topology = "pairs", pairs = [{pairs}]', "isl_ports = 4"))
    lines = str(raised.value).splitlines()
    assert len(lines) == 6
    assert lines[-1].endswith("and 95 more that are no satellites of it")


def test_one_object_in_two_constellations_is_told(tmp_path: Path) -> None:
    """A catalogue number is that of one satellite, whichever constellation or format names it."""
    (tmp_path / "a.tle").write_text(vanguard.TLE)
    (tmp_path / "b.csv").write_text(vanguard.CSV.replace("VANGUARD 1", "OTHER NAME"))
    text = changed(f"walker = {{ {WALKER} }}", 'tle = "a.tle"') + '[[constellation]]\nname = "b"\nomm = "b.csv"\n'
    with pytest.raises(InputError) as raised:
        parsed(text, tmp_path)
    (line,) = str(raised.value).splitlines()
    for word in ("constellation[1] (b.csv:2): its catalogue number 5", "constellation[0] (a.tle:2)"):
        assert word in line


def test_a_file_of_two_and_three_line_sets_is_read(tmp_path: Path) -> None:
    """Sets with and without a name line stand in one file, in order, also with the catalogue's leading "0 "."""
    lines = vanguard.TLE.splitlines()
    second = [line.replace("00005", "00012") for line in lines]
    second[1:] = [line[:-1] + str((int(line[-1]) + 8) % 10) for line in second[1:]]  # 5 became 1 + 2: two less
    third = [line.replace("00005", "00007") for line in lines]
    third[1:] = [line[:-1] + str((int(line[-1]) + 2) % 10) for line in third[1:]]
    text = "\n".join([*lines, *second[1:], "0 VANGUARD 7", *third[1:]]) + "\r\n"
    (tmp_path / "a.tle").write_text(text)
    names = parsed(changed(f"walker = {{ {WALKER} }}", 'tle = "a.tle"'), tmp_path).satellite_names
    assert names == ("vanguard-1", "sat-12", "vanguard-7")


def test_a_name_too_long_for_a_host_is_told(tmp_path: Path) -> None:
    """An object's name becomes a node's, which has a bound."""
    (tmp_path / "b.csv").write_text(vanguard.CSV.replace("VANGUARD 1", "V" * 49))
    with pytest.raises(InputError, match=r"b\.csv:2\).*longer than 48 characters"):
        parsed(changed(f"walker = {{ {WALKER} }}", 'omm = "b.csv"'), tmp_path)
