"""Two-line element sets of a scenario: read, chosen from, and told where they are wrong."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings

from controller.errors import InputError
from controller.scenario import load_scenario
from controller.scenario.tle import TleError, checksum, parse_tle
from tests.searches import examples
from tests.unit.scenario.text import MUTATIONS, WALKER, changed, mutated, parsed

ISS = """\
ISS (ZARYA)
1 25544U 98067A   08264.51782528 -.00002182  00000-0 -11606-4 0  2927
2 25544  51.6416 247.4627 0006703 130.5360 325.0288 15.72125391563537
"""


def test_element_sets_are_read_relative_to_the_scenario(tmp_path: Path) -> None:
    """A tle path is relative to the scenario's file; names become slugs; select and limit choose."""
    (tmp_path / "some.tle").write_text(ISS + ISS.replace("ISS (ZARYA)", "ISS COPY"))
    file = tmp_path / "mine.toml"
    file.write_text(changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"\nselect = ["ISS*"]\nlimit = 1'))
    assert load_scenario(str(file)).satellite_names == ("iss-zarya",)


def test_two_line_sets_are_named_by_their_catalogue_number(tmp_path: Path) -> None:
    """An object without a name line is called after its constellation and catalogue number."""
    (tmp_path / "some.tle").write_text("".join(ISS.splitlines(keepends=True)[1:]))
    scenario = parsed(changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"'), tmp_path)
    assert scenario.satellite_names == ("sat-25544",)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2927", "2928", ["some.tle:2", "checksum is '8', but the line adds up to 7"]),
        ("51.6416", "51.641X", ["some.tle:3", "checksum"]),
        (" 0  2927", " 0 2927", ["some.tle:2", "69 ASCII characters"]),
        (
            "67A   08264.51782528 -.00002182  00000-0 -11606-4 0  2927",
            "67A  108264.51782528 -.00002182  00000-0 -11606-4 0  2928",
            ["some.tle:2", "column 18 should be blank, found '1'"],
        ),
        (" 51.6416", " 51x6416", ["some.tle:3", "columns 9 to 16", "inclination"]),
        ("51.6416 247.4627 ", "51.6416 247 4627 ", ["some.tle:3", "columns 18 to 25", "right ascension"]),
        ("2 25544", "2 25545", ["some.tle:3"]),
        ("1 25544U", "3 25544U", ["some.tle:"]),
    ],
)
def test_a_broken_element_set_is_told_with_its_line(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    """A bad checksum, length, field or order names the file and the line."""
    (tmp_path / "some.tle").write_text(ISS.replace(old, new))
    with pytest.raises(InputError) as raised:
        parsed(changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"'), tmp_path)
    for word in [*words, "trial.toml: constellation[0].tle"]:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (" 0006703 ", " 9006703 ", ["some.tle:3", "eccentricity 0.9006703", "km below the ground"]),
        ("-4 0  292", "-4 4  292", ["some.tle:2", "column 63", "ephemeris type of SGP4, 0, found '4'"]),
        (" 15.72125391", "  0.00000000", ["some.tle:3", "columns 53 to 63 hold the mean motion", "from 0.01 to 20"]),
        ("-11606-4", "-11606+3", ["some.tle:2", "columns 54 to 61 hold the drag term", "from -10 to 10, not -11606+3"]),
        (" 51.6416", "251.6416", ["some.tle:3", "columns 9 to 16 hold the inclination", "from 0 to 180"]),
        ("08264.51782528", "08404.51782528", ["some.tle:2", "hold the epoch day", "from 1 to 367"]),
        ("08264.51782528", "08   .        ", ["some.tle:2", "columns 21 to 32 should hold the epoch day"]),
        ("25544", "I5544", ["some.tle:2", "columns 3 to 7 should hold the catalogue number, found 'I5544'"]),
    ],
)
def test_an_impossible_orbit_is_told_behind_a_right_checksum(
    tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    """Values that no element set has are told with file, line, columns and what may stand there."""
    lines = ISS.replace(old, new).splitlines()
    lines[1:] = [line[:68] + str(checksum(line)) for line in lines[1:]]
    (tmp_path / "some.tle").write_text("\n".join(lines))
    with pytest.raises(InputError) as raised:
        parsed(changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"'), tmp_path)
    for word in [*words, "trial.toml: constellation[0].tle"]:
        assert word in str(raised.value)


def test_every_broken_element_set_of_a_file_is_told(tmp_path: Path) -> None:
    """Reading goes on after a broken set: two broken ones of three give two lines."""
    bad = ISS.replace("2927", "2928")
    (tmp_path / "some.tle").write_text(bad + ISS + bad)
    with pytest.raises(InputError) as raised:
        parsed(changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"'), tmp_path)
    assert [line.split("some.tle:")[1].split(":")[0] for line in str(raised.value).splitlines()] == ["2", "8"]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (ISS, ["some.tle:5)", "its catalogue number 25544 is that of", "some.tle:2)", "take the older"]),
        (ISS.replace("25544", "25545").replace("2927", "2928").replace("563537", "563538"),
         ["some.tle:5)", "its name 'iss-zarya' is that of", "some.tle:2)", "another name"]),
    ],
    ids=["catalogue number", "name"],
)  # fmt: skip
def test_one_object_twice_is_told_with_both_its_places(tmp_path: Path, second: str, words: list[str]) -> None:
    """Two element sets of one catalogue number, or whose names give one node name, are refused, with both lines."""
    (tmp_path / "some.tle").write_text(ISS + second)
    with pytest.raises(InputError) as raised:
        parsed(changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"'), tmp_path)
    assert len(str(raised.value).splitlines()) == 1
    for word in words:
        assert word in str(raised.value)


def test_duplicates_that_are_not_chosen_are_no_mistake(tmp_path: Path) -> None:
    """A catalogue number twice in a file matters only where select and limit leave both."""
    (tmp_path / "some.tle").write_text(ISS + ISS.replace("ISS (ZARYA)", "OTHER"))
    text = changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"\nselect = ["ISS*"]')
    assert parsed(text, tmp_path).satellite_names == ("iss-zarya",)


def test_select_that_chooses_nothing_is_told(tmp_path: Path) -> None:
    """A pattern without a match is a mistake, not an empty sky."""
    (tmp_path / "some.tle").write_text(ISS)
    with pytest.raises(InputError, match=r"constellation\[0\]\.select = \['STAR\*'\]"):
        parsed(changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"\nselect = ["STAR*"]'), tmp_path)


@settings(max_examples=examples(300), deadline=None)
@given(MUTATIONS)
def test_damaged_element_sets_are_still_right_or_a_clear_error(mutations: list[tuple[int, str, int]]) -> None:
    """Also where the checksum happens to be right, element sets parse or raise TleError."""
    lines = mutated(ISS, mutations).split("\n")
    with suppress(TleError):
        parse_tle("\n".join(line[:68] + str(checksum(line)) if len(line) == 69 else line for line in lines))
