from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter

import pytest

from controller.errors import InputError
from controller.scenario.omm import OmmError, parse_omm
from tests.unit.scenario import vanguard
from tests.unit.scenario.text import WALKER, parsed, with_elements


def changed_json(**changes: object) -> str:
    """Vanguard 1 with other values; None takes a key away."""
    fields = vanguard.FIELDS | changes
    return json.dumps([{key: value for key, value in fields.items() if value is not None}])


@pytest.mark.parametrize("extension", vanguard.BY_EXTENSION)
def test_an_omm_of_each_format_names_a_satellite_as_its_tle_does(tmp_path: Path, extension: str) -> None:
    """The same object gives the same node name, with and without a name in the file, and the same epoch."""
    file = f"one{extension}"
    (tmp_path / file).write_text(vanguard.BY_EXTENSION[extension])
    (tmp_path / "one.tle").write_text(vanguard.TLE)
    from_omm = parsed(with_elements("omm", file), tmp_path)
    from_tle = parsed(with_elements("tle", "one.tle"), tmp_path)
    assert from_omm.satellite_names == from_tle.satellite_names == ("vanguard-1",)
    epochs = {s.constellations[0].element_sets[0].epoch_utc for s in (from_omm, from_tle)}
    assert {epoch.isoformat() for epoch in epochs} == {"2020-10-13T04:52:48.472320+00:00"}

    (tmp_path / file).write_text(vanguard.BY_EXTENSION[extension].replace("VANGUARD 1", ""))
    (tmp_path / "one.tle").write_text(vanguard.TLE.partition("\n")[2])
    assert parsed(with_elements("omm", file), tmp_path).satellite_names == ("sat-5",)
    assert parsed(with_elements("tle", "one.tle"), tmp_path).satellite_names == ("sat-5",)


def test_an_omm_of_several_objects_is_chosen_from(tmp_path: Path) -> None:
    """`select` and `limit` work as for TLE; catalogue numbers may have nine digits; text and number mean the same."""
    names = ["ALPHA 1", "BETA", "ALPHA 2", "ALPHA 3"]
    objects = [vanguard.FIELDS | {"OBJECT_NAME": n, "NORAD_CAT_ID": 799_500_000 + i} for i, n in enumerate(names)]
    objects[2] = {key: str(value) for key, value in objects[2].items()}
    (tmp_path / "sets.JSON").write_text(json.dumps(objects))
    text = with_elements("omm", "sets.JSON", 'select = ["ALPHA*"]\nlimit = 2')
    chosen = parsed(text, tmp_path).constellations[0].element_sets
    assert [(s.name, s.catalogue, s.place) for s in chosen] == [
        ("ALPHA 1", "799500000", ", object 1"),
        ("ALPHA 2", "799500002", ", object 3"),
    ]


def test_a_catalogue_of_ten_thousand_objects_is_read_in_seconds(tmp_path: Path) -> None:
    """What a large file takes grows with its objects, not with their square."""
    objects = [vanguard.FIELDS | {"OBJECT_NAME": f"OBJECT {i}", "NORAD_CAT_ID": i} for i in range(10_000)]
    (tmp_path / "sets.json").write_text(json.dumps(objects))
    began_s = perf_counter()
    scenario = parsed(with_elements("omm", "sets.json"), tmp_path)
    assert perf_counter() - began_s < 5.0
    assert scenario.satellite_names[-1] == "object-9999"


def test_an_epoch_may_be_a_day_of_the_year() -> None:
    """CCSDS 301.0-B-4 has two time codes in ASCII: calendar, and day of the year, each with Z or without."""
    (by_date,) = parse_omm(vanguard.JSON, ".json")
    for epoch in ("2020-287T04:52:48.472320", "2020-10-13T04:52:48.47232Z"):
        assert parse_omm(changed_json(EPOCH=epoch), ".json")[0].epoch_utc == by_date.epoch_utc


BAD = {
    "empty json": (".json", "", ["one.json:1: not JSON"]),
    "cut json": (".json", vanguard.JSON[:100], ["one.json:1: not JSON"]),
    "no list": (".json", "[]", ["one.json: there is no object in the file"]),
    "numbers": (".json", "[1]", ["one.json, object 1: must be a table of keys", "found 1"]),
    "deep": (".json", "[" * 100_000, ["one.json: not JSON"]),
    "endless number": (".json", '[{"EPOCH": ' + "9" * 5_000 + "}]", ["one.json: not JSON"]),
    "missing": (".json", changed_json(BSTAR=None), ["one.json, object 1: 'VANGUARD 1': BSTAR: missing"]),
    "null": (".json", '[{"OBJECT_NAME": null, "NORAD_CAT_ID": null}]', ["object 1: NORAD_CAT_ID: missing"]),
    "word": (".json", changed_json(INCLINATION="steep"), ["INCLINATION = 'steep': must be a number"]),
    "boolean": (".json", changed_json(MEAN_MOTION=True), ["MEAN_MOTION = true: must be a number"]),
    "list": (".json", changed_json(MEAN_MOTION=[1.0]), ["MEAN_MOTION = [1.0]: must be a number"]),
    "not a number": (".json", vanguard.JSON.replace("34.2443", "NaN"), ["INCLINATION = NaN: must be from 0 to 180"]),
    "infinity": (".json", vanguard.JSON.replace("34.2443", "Infinity"), ["INCLINATION = Infinity: must be from"]),
    "huge": (".json", changed_json(BSTAR=10**400), ["BSTAR = a number of more than 40 digits: must be from -10 to"]),
    "parabola": (".json", changed_json(ECCENTRICITY=1), ["ECCENTRICITY = 1: must be from 0 to 0.999999999"]),
    "no motion": (".json", changed_json(MEAN_MOTION=0), ["MEAN_MOTION = 0: must be from 0.01 to 20"]),
    "through the Earth": (
        ".json",
        changed_json(ECCENTRICITY=0.9),
        ["one.json, object 1: 'VANGUARD 1': MEAN_MOTION, ECCENTRICITY: mean motion 10.8486916", "km below the ground"],
    ),
    "ten digits": (".json", changed_json(NORAD_CAT_ID=10**9), ["NORAD_CAT_ID = 1000000000: must be a whole number"]),
    "half a number": (".json", changed_json(NORAD_CAT_ID=5.5), ["NORAD_CAT_ID = 5.5: must be a whole number"]),
    "negative": (".json", changed_json(NORAD_CAT_ID=-5), ["NORAD_CAT_ID = -5: must be a whole number"]),
    "name": (".json", changed_json(OBJECT_NAME=7), ["OBJECT_NAME = 7: must be text"]),
    "time system": (".json", changed_json(TIME_SYSTEM="TAI"), ["'VANGUARD 1': TIME_SYSTEM = 'TAI': must be UTC"]),
    "theory": (".json", changed_json(MEAN_ELEMENT_THEORY="DSST"), ["MEAN_ELEMENT_THEORY = 'DSST': must be SGP4"]),
    "frame": (".json", changed_json(REF_FRAME="EME2000"), ["REF_FRAME = 'EME2000': must be TEME"]),
    "centre": (".json", changed_json(CENTER_NAME="MARS"), ["CENTER_NAME = 'MARS': must be EARTH"]),
    "SGP4-XP": (".json", changed_json(EPHEMERIS_TYPE=4), ["EPHEMERIS_TYPE = 4: must be 0"]),
    "no such day": (".json", changed_json(EPOCH="2021-02-29T00:00:00"), ["EPOCH = '2021-02-29T00:00:00'", "instant"]),
    "no such hour": (".json", changed_json(EPOCH="2021-02-28T24:00:00"), ["EPOCH = '2021-02-28T24:00:00'", "instant"]),
    "no epoch": (".json", changed_json(EPOCH="yesterday"), ["EPOCH = 'yesterday'", "2026-01-01T12:00:00"]),
    "empty csv": (".csv", "\n\n", ["one.csv: there is no object in the file"]),
    "csv of something": (".csv", "a,b\n1,2\n", ["one.csv:1: the first line should name the columns"]),
    "short row": (".csv", vanguard.CSV + "A,B\n", ["one.csv:3: has 2 values, but the first line names 17"]),
    "csv field": (".csv", vanguard.CSV.replace("34.2443", "x"), ["one.csv:2: 'VANGUARD 1': INCLINATION = 'x'"]),
    "csv without a value": (".csv", vanguard.CSV.replace("34.2443", ""), ["INCLINATION: missing"]),
    "open quote": (".csv", vanguard.CSV.replace("VANGUARD 1", '"VANGUARD 1'), ["one.csv:2: not CSV"]),
    "empty xml": (".xml", "", ["one.xml:1: not XML: no element found"]),
    "cut xml": (".xml", vanguard.XML[:900], ["not XML"]),
    "xml of something": (".xml", "<html><body/></html>", ["one.xml: there is no object in the file"]),
    "xml field": (".xml", vanguard.XML.replace(">34.2443<", "><"), ["one.xml, object 1: 'VANGUARD 1': INCLINATION"]),
    "entity": (
        ".xml",
        vanguard.XML.replace("<ndm", '<!DOCTYPE ndm [<!ENTITY a "34.2443">]><ndm').replace("34.2443<", "&a;<"),
        ["one.xml:2: has a document type"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_in_an_omm_is_told_with_its_object_and_field(tmp_path: Path, case: str) -> None:
    """Each raises InputError of one line, that names scenario, key, file, object and what would be right."""
    extension, text, words = BAD[case]
    (tmp_path / f"one{extension}").write_text(text)
    with pytest.raises(InputError) as raised:
        parsed(with_elements("omm", f"one{extension}"), tmp_path)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    for word in (f"trial.toml: constellation[0].omm: {tmp_path}", *words):
        assert word in message


def test_every_wrong_object_of_a_file_is_told_up_to_a_bound(tmp_path: Path) -> None:
    """Reading goes on after a wrong object; of very many, the rest is counted."""
    wrong = vanguard.FIELDS | {"BSTAR": "x"}
    (tmp_path / "one.json").write_text(json.dumps([wrong, vanguard.FIELDS, wrong]))
    with pytest.raises(InputError) as raised:
        parsed(with_elements("omm", "one.json"), tmp_path)
    assert [", object 1" in line or ", object 3" in line for line in str(raised.value).splitlines()] == [True, True]
    (tmp_path / "one.json").write_text(json.dumps([wrong] * 1_000))
    with pytest.raises(InputError, match="and 980 more such problems"):
        parsed(with_elements("omm", "one.json"), tmp_path)


def test_a_constellation_has_one_source(tmp_path: Path) -> None:
    """Two sources of satellites are told; a file that is not text, too."""
    (tmp_path / "one.json").write_text(vanguard.JSON)
    with pytest.raises(InputError, match="exactly one of walker, tle and omm, found walker and omm"):
        parsed(with_elements("omm", "one.json", f"walker = {{ {WALKER} }}"), tmp_path)
    (tmp_path / "one.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"constellation\[0\]\.omm = 'one.json': .*one\.json is not a text file"):
        parsed(with_elements("omm", "one.json"), tmp_path)


def test_the_error_of_omm_alone_names_object_and_field() -> None:
    """Also without a scenario the message says what is wrong and where."""
    with pytest.raises(OmmError, match="object 1: 'VANGUARD 1': EPOCH: missing; SGP4 needs it"):
        parse_omm(changed_json(EPOCH=None), ".json")
