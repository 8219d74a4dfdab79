"""Ten thousand broken files through the command line: each is read after all, or refused with one clear message."""

from __future__ import annotations

import io
import json
import random
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.cli.main import main
from controller.scenario.tle import LINE_LENGTH, checksum
from tests.unit.scenario import vanguard

N_FILE = 10_000
N_BATCH = 20
MAX_LINES = 60  # of one message

SCENARIO = """\
name = "broken"
epoch = 2020-10-14T00:00:00Z
duration_s = 60.0
step_s = 10.0
start_s = 5.0
time_scale = 2.0
seed = 3

[[constellation]]
name = "sat"
walker = { pattern = "delta", total = 6, planes = 2, phasing = 1, altitude_m = 780_000, inclination_deg = 55.0 }
isl = { topology = "plus-grid", rate_bps = 1_000_000, max_range_m = 6_000_000, cross_plane_max_latitude_deg = 70.0 }

[[constellation]]
name = "relay"
walker = { pattern = "star", total = 2, planes = 1, phasing = 0, altitude_m = 8_000_000, inclination_deg = 5.0 }
max_gsl = 2

[constellation.isl]
topology = "pairs"
pairs = [["relay-p00s00", "relay-p00s01"]]
optical = { power_w = 1.0, transmit_aperture_m = 0.1, receive_aperture_m = 0.1, max_rate_bps = 1_000_000_000 }

[[isl]]
between = ["sat", "relay"]
k = 1
serves = 3
acquisition_s = 2.0
radio = { frequency_hz = 23e9, bandwidth_hz = 50e6, eirp_dbw = 40.0, g_t_db_k = 10.0 }

[[ground]]
name = "quito"
role = "gateway"
latitude_deg = -0.18
longitude_deg = -78.47
altitude_m = 2_850.0
min_elevation_deg = 5.0
antennas = 2
overlap_s = 2.0
horizon_deg = [[0.0, 5.0], [90.0, 12.5], [270.0, 7.5]]
radio = { frequency_hz = 12e9, bandwidth_hz = 250e6, eirp_dbw = 30.0, g_t_db_k = 8.0, losses_db = 1.0 }
rain = { r001_mm_h = 60.0, probability_ratio = 0.05, mean_duration_s = 30.0 }
jurisdiction = "EC"

[[ground]]
name = "ship"
role = "terminal"
latitude_deg = 10.0
longitude_deg = 179.9
waypoints = [{ at_s = 30.0, latitude_deg = 10.1, longitude_deg = -179.9 }]
handover = "highest"
loss_ratio = 0.01

[[fault]]
kind = "blackout"
target = "quito"
at_s = 10.0
duration_s = 5.0

[[probe]]
a = "quito"
b = "ship"

[resources]
memory_bytes = 134_217_728
"""

AROUND = """\
name = "around"
epoch = 2020-10-14T00:00:00Z
duration_s = 60.0
step_s = 10.0

[[constellation]]
name = "sat"
KEY = "FILE"
isl = { topology = "nearest-k", k = 2 }

[[ground]]
name = "quito"
role = "gateway"
latitude_deg = -0.18
longitude_deg = -78.47
"""


def with_checksums(text: str) -> str:
    """Element lines whose last digit is right again, so that what is wrong is found behind the checksum."""
    lines = text.split("\n")
    return "\n".join(line[:-1] + str(checksum(line)) if len(line) == LINE_LENGTH else line for line in lines)


# Vanguard 1, and others that differ from it in name, number and place.
TLE = with_checksums(
    vanguard.TLE
    + vanguard.TLE.replace("00005", "00007").replace(" 205.2", " 235.2").partition("\n")[2]
    + vanguard.TLE.replace("00005", "T0009").replace(" 205.2", " 265.2").replace("VANGUARD 1", "VANGUARD 9")
)
OTHER = vanguard.FIELDS | {"OBJECT_NAME": "V 2", "NORAD_CAT_ID": 799_500_001, "MEAN_ANOMALY": 235.2356}


def other(text: str, number: str) -> str:
    """The same object of CSV or XML, become another."""
    return text.replace("VANGUARD 1", "V 2").replace("205.2", "235.2").replace(number, number.replace("5", "799500001"))


JSON = json.dumps([vanguard.FIELDS, OTHER], indent=1)
CSV = vanguard.CSV + other(vanguard.CSV.split("\n")[1], ",5,") + "\n"
OMM = vanguard.XML[vanguard.XML.index("<omm") : vanguard.XML.index("</ndm>")]
XML = vanguard.XML.replace("</ndm>", other(OMM, ">5<") + "</ndm>")


@dataclass(frozen=True)
class Family:
    """A kind of file: a right one, and the scenario that names it (itself, if it is one)."""

    file: str
    text: str
    key: str = ""


FAMILIES = (
    Family("scenario.toml", SCENARIO),
    Family("sets.tle", TLE, "tle"),
    Family("sets.json", JSON, "omm"),
    Family("sets.xml", XML, "omm"),
    Family("sets.csv", CSV, "omm"),
)

# What may stand in place of a value: of the wrong type, absurd, or on the edge.
VALUES = (
    "0", "-1", "1e308", "-1e-308", "9" * 40, "9" * 5_000, "nan", "inf", "-inf", "NaN", "Infinity", "true", "null", "''",
    '""', '"x"', "[]", "{}", "[[1, 2]]", "{ a = 1 }", "2020-02-30", "2020-10-14T00:00:00Z", "0x7f", "1_0", "٣", "½",
    "+", ".", "-", "1e", "&lt;", "&a;", "<b/>", ",", "\\", "\x00", "\u2028", "\ud7ff", "💥",
)  # fmt: skip
NUMBER = re.compile(r"[-+]?[0-9_]*\.?[0-9_]+(e[-+]?\d+)?", re.IGNORECASE)


def cut(rng: random.Random, text: str) -> str:
    """The file ends too soon."""
    return text[: rng.randrange(len(text) + 1)]


def flip_a_bit(rng: random.Random, text: str) -> str:
    """One character is another."""
    at = rng.randrange(len(text)) if text else 0
    return text[:at] + chr(ord(text[at]) ^ 1 << rng.randrange(7)) + text[at + 1 :] if text else text


def drop(rng: random.Random, text: str) -> str:
    """Some characters are missing."""
    at = rng.randrange(len(text) + 1)
    return text[:at] + text[at + rng.randint(1, 20) :]


def insert(rng: random.Random, text: str) -> str:
    """Something stands where nothing should."""
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(VALUES) + text[at:]


def of_lines(change: Callable[[random.Random, list[str]], None]) -> Callable[[random.Random, str], str]:
    """A change to the list of lines."""

    def changed(rng: random.Random, text: str) -> str:
        lines = text.split("\n")
        change(rng, lines)
        return "\n".join(lines)

    return changed


def swap_lines(rng: random.Random, lines: list[str]) -> None:
    """Two lines change places."""
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]


def drop_a_line(rng: random.Random, lines: list[str]) -> None:
    """A line is missing."""
    del lines[rng.randrange(len(lines))]


def double_a_line(rng: random.Random, lines: list[str]) -> None:
    """A line is there twice."""
    i = rng.randrange(len(lines))
    lines.insert(rng.randrange(len(lines) + 1), lines[i])


def change_a_value(rng: random.Random, text: str) -> str:
    """A number is something else."""
    numbers = list(NUMBER.finditer(text))
    if not numbers:
        return text
    found = rng.choice(numbers)
    return text[: found.start()] + rng.choice(VALUES) + text[found.end() :]


def change_a_word(rng: random.Random, text: str) -> str:
    """A name or a key is another of the file."""
    words = list(re.finditer(r"[A-Za-z_-]{2,}", text))
    if not words:
        return text
    one, other = rng.choice(words), rng.choice(words)
    return text[: one.start()] + other.group() + text[one.end() :]


def fix_checksums(_rng: random.Random, text: str) -> str:
    """Whatever was done, the checksums are right."""
    return with_checksums(text)


def other_line_ends(_rng: random.Random, text: str) -> str:
    """The file is from another system: no damage at all."""
    return "\ufeff" + text.replace("\n", "\r\n")


DAMAGES: tuple[Callable[[random.Random, str], str], ...] = (
    cut, flip_a_bit, flip_a_bit, drop, insert, of_lines(swap_lines), of_lines(drop_a_line), of_lines(double_a_line),
    change_a_value, change_a_value, change_a_value, change_a_word, other_line_ends,
)  # fmt: skip


def broken(rng: random.Random, family: Family) -> bytes:
    """A damaged file of a kind."""
    text = family.text
    for _ in range(rng.randint(1, 3)):
        text = rng.choice(DAMAGES)(rng, text)
    if family.key == "tle" and rng.random() < 0.7:
        text = fix_checksums(rng, text)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.02 and data:
        at = rng.randrange(len(data))
        data = data[:at] + rng.randbytes(3) + data[at:]
    return data


def skyrack(*arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process: its exit status, and what it wrote to standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    before, status = sys.argv, 0
    sys.argv = ["skyrack", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = before
    return status, out.getvalue(), err.getvalue()


def place(folder: Path, family: Family, data: bytes) -> Path:
    """Put a file of a kind into a folder; the scenario to plan."""
    (folder / family.file).write_bytes(data)
    scenario = folder / "scenario.toml"
    if family.key:
        scenario.write_text(AROUND.replace("KEY", family.key).replace("FILE", family.file))
    return scenario


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.file)
def test_what_is_to_be_broken_is_right(tmp_path: Path, family: Family) -> None:
    """Undamaged, each kind of file is planned."""
    status, out, err = skyrack("contacts", str(place(tmp_path, family, family.text.encode())), "--format", "json")
    assert (status, err) == (0, "")
    assert out.startswith("[")


@pytest.mark.parametrize("batch", range(N_BATCH))
def test_a_broken_file_is_read_or_refused_with_one_clear_message(tmp_path: Path, batch: int) -> None:
    """Exit status 0 where the damage did no harm, else 2 and a message that names the file; never anything else."""
    n_refused = 0
    for seed in range(batch, N_FILE, N_BATCH):
        rng = random.Random(seed)
        family = FAMILIES[seed // N_BATCH % len(FAMILIES)]
        data = broken(rng, family)
        scenario = place(tmp_path, family, data)
        try:
            status, out, err = skyrack("contacts", str(scenario), "--format", "json")
        except Exception as error:
            raise AssertionError(f"seed {seed}: {family.file} ends in a traceback:\n{data!r}") from error
        told = f"seed {seed}: {family.file}: status {status}\n{err}"
        assert status in (0, 2), told
        assert "Traceback" not in err, told
        if status == 2:
            n_refused += 1
            assert out == "", told
            assert err.startswith("skyrack: "), told
            assert str(scenario) in err, told
            assert not family.key or family.file in err or "constellation[0].select" in err, told
            assert len(err.splitlines()) <= MAX_LINES, told
    assert n_refused > N_FILE / N_BATCH / 3  # the files are broken indeed
