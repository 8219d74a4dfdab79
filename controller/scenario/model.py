"""The scenario file as frozen, validated types. Keys, units and meanings are the user's contract.

Values are strict: a number in quotes is an error, not a number. Checks that span several tables are in `load`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from controller.scenario.fields import LossRatio, RateBps, Slug, Table
from controller.scenario.link_model import CrossIsl, IslPolicy, RadioBudget, Rain, isl_ports_needed
from controller.scenario.tle import TleError, TleSet, parse_tle

EPOCH_YEARS = (1957, 2056)  # what the two digits of a TLE's year can say
MAX_DURATION_S = 31 * 86_400.0

Handover = Literal["longest", "highest", "nearest"]


def slug(text: str) -> str:
    """A name fit for a host: small letters and digits, anything else one hyphen. "IRIDIUM 7 [-]" → "iridium-7"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class Walker(Table):
    """A Walker constellation of circular orbits: `total` satellites evenly over `planes` planes."""

    pattern: Literal["star", "delta"]
    total: int = Field(ge=1, le=100_000)
    planes: int = Field(ge=1)
    phasing: int = Field(ge=0)
    altitude_m: float = Field(ge=120_000.0, le=100_000_000.0)
    inclination_deg: float = Field(ge=0.0, le=180.0)
    raan_deg: float = Field(default=0.0, ge=-360.0, le=360.0)

    @field_validator("planes")
    @classmethod
    def _planes_divide_total(cls, planes: int, info: ValidationInfo) -> int:
        total = info.data.get("total")
        if total is not None and total % planes:
            fitting = [p for p in range(1, total + 1) if total % p == 0]
            raise PydanticCustomError(
                "planes", "must divide total = {total} evenly, one of {fitting}", {"total": total, "fitting": fitting}
            )
        return planes

    @field_validator("phasing")
    @classmethod
    def _phasing_below_planes(cls, phasing: int, info: ValidationInfo) -> int:
        planes = info.data.get("planes")
        if planes is not None and phasing >= planes:
            raise PydanticCustomError("phasing", "must be from 0 to planes - 1 = {last}", {"last": planes - 1})
        return phasing

    @property
    def slots(self) -> int:
        """Satellites in a plane."""
        return self.total // self.planes


class TleFile(Table):
    """A file of element sets: its path as the scenario gives it, and what it holds."""

    path: str
    sets: tuple[TleSet, ...]


def _read_tle(value: object, info: ValidationInfo) -> object:
    """Read the file that `tle` names, relative to the scenario's own folder (the validation context)."""
    if not isinstance(value, str) or not isinstance(info.context, Path):
        raise PydanticCustomError("tle", "must be the path of a file of two-line element sets")
    path = info.context / value
    try:
        return TleFile(path=value, sets=parse_tle(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PydanticCustomError(
            "tle", "cannot read {path}: {why}", {"path": str(path), "why": error.strerror or str(error)}
        ) from error
    except UnicodeDecodeError as error:
        raise PydanticCustomError("tle", "{path} is not a text file", {"path": str(path)}) from error
    except TleError as error:
        lines = [f"{path}:{number}: {message}" for number, message in error.problems]
        raise PydanticCustomError("tle_lines", "has bad element sets", {"lines": lines}) from error


class Constellation(Table):
    """Satellites that belong together, from a Walker pattern or from element sets."""

    name: Slug
    walker: Walker | None = None
    tle: Annotated[TleFile | None, BeforeValidator(_read_tle)] = None
    omm: str | None = None
    select: tuple[str, ...] = Field(default=("*",), strict=False, min_length=1)
    limit: int | None = Field(default=None, ge=1)
    isl: IslPolicy = IslPolicy()
    isl_ports: int = Field(default=4, ge=0, le=16, validate_default=True)
    max_gsl: int = Field(default=4, ge=0, le=64)

    @field_validator("omm")
    @classmethod
    def _omm_is_not_yet_supported(cls, omm: str | None) -> str | None:
        raise PydanticCustomError("omm", "is not yet supported; give the elements as a tle file")

    @field_validator("isl_ports")
    @classmethod
    def _ports_suffice(cls, isl_ports: int, info: ValidationInfo) -> int:
        isl = info.data.get("isl")
        if isl is not None and isl_ports < isl_ports_needed(isl):
            raise PydanticCustomError(
                "isl_ports",
                'the port pool is too small: topology "{topology}" needs at least {needed}',
                {"topology": isl.topology, "needed": isl_ports_needed(isl)},
            )
        return isl_ports

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.walker is None) == (self.tle is None):
            found = "found both" if self.walker is not None else "found neither"
            raise PydanticCustomError("source", "needs exactly one of walker and tle, {found}", {"found": found})
        if self.walker is not None and (self.limit is not None or self.select != ("*",)):
            raise PydanticCustomError("source", "select and limit choose among element sets; walker has total")
        return self

    @property
    def element_sets(self) -> tuple[TleSet, ...]:
        """The element sets that `select` and `limit` leave, in the file's order; none for a Walker pattern."""
        if self.tle is None:
            return ()
        chosen = tuple(s for s in self.tle.sets if any(fnmatchcase(s.name, pattern) for pattern in self.select))
        return chosen[: self.limit]

    @property
    def satellite_names(self) -> tuple[str, ...]:
        """Node names in the order of the satellites: plane by plane and slot by slot, or as in the file."""
        if self.walker is not None:
            plane_digits = max(2, len(str(self.walker.planes - 1)))
            slot_digits = max(2, len(str(self.walker.slots - 1)))
            return tuple(
                f"{self.name}-p{plane:0{plane_digits}d}s{slot:0{slot_digits}d}"
                for plane in range(self.walker.planes)
                for slot in range(self.walker.slots)
            )
        return tuple(slug(s.name) or f"{self.name}-{slug(s.catalogue)}" for s in self.element_sets)


class Waypoint(Table):
    """Where a moving ground node is at one time; between two it follows the great circle at an even pace."""

    at_s: float = Field(ge=0.0)  # since the epoch
    latitude_deg: float = Field(ge=-90.0, le=90.0)
    longitude_deg: float = Field(ge=-180.0, le=180.0)
    altitude_m: float = Field(default=0.0, ge=-500.0, le=30_000.0)


class Ground(Table):
    """A gateway or terminal, on the Earth or close above it."""

    name: Slug
    role: Literal["gateway", "terminal"]
    latitude_deg: float = Field(ge=-90.0, le=90.0)
    longitude_deg: float = Field(ge=-180.0, le=180.0)
    altitude_m: float = Field(default=0.0, ge=-500.0, le=30_000.0)
    waypoints: tuple[Waypoint, ...] = Field(default=(), strict=False)  # where it is later, if it moves
    min_elevation_deg: float = Field(default=10.0, ge=0.0, lt=90.0)
    horizon_deg: tuple[tuple[float, float], ...] = Field(default=(), strict=False)  # (azimuth, lowest elevation) pairs
    antennas: int = Field(default=1, ge=1, le=16)
    handover: Handover = "longest"
    overlap_s: float = Field(
        default=0.0, ge=0.0, le=600.0
    )  # make before break: so long both links of a handover are up
    rate_bps: RateBps = 50_000_000  # where no budget is given
    radio: RadioBudget | None = None
    rain: Rain | None = None
    loss_ratio: LossRatio = 0.0
    jurisdiction: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")


class Fault(Table):
    """Something that is masked over the geometry for a while. `target` is a node, or "a~b" for a link."""

    kind: Literal["blackout", "node-down", "degrade"]
    target: str
    at_s: float = Field(ge=0.0)
    duration_s: float = Field(gt=0.0)
    mode: Literal["silent", "reject", "carrier"] = "silent"

    @field_validator("kind")
    @classmethod
    def _kind_is_supported(cls, kind: str) -> str:
        if kind != "blackout":
            raise PydanticCustomError("kind", 'is not yet supported; so far there is "blackout"')
        return kind

    @field_validator("mode")
    @classmethod
    def _mode_is_supported(cls, mode: str) -> str:
        if mode != "silent":
            raise PydanticCustomError("mode", 'is not yet supported; so far there is "silent"')
        return mode

    @property
    def ends(self) -> tuple[str, ...]:
        """The one node of a node's fault, or the two of a link's."""
        return tuple(self.target.split("~"))


class Probe(Table):
    """Two nodes between which round trips are measured all along."""

    a: str
    b: str


class Resources(Table):
    """What each node's container may use."""

    memory_bytes: int = Field(default=512 * 1024 * 1024, ge=64 * 1024 * 1024)
    cpu_limit: float = Field(default=1.0, gt=0.0, le=1024.0)  # cores
    pids_limit: int = Field(default=128, ge=16)


class Scenario(Table):
    """A whole scenario: who is in the sky and on the ground, from when, for how long, and what goes wrong."""

    name: Slug
    epoch: datetime
    duration_s: float = Field(gt=0.0, le=MAX_DURATION_S)
    step_s: float = Field(default=1.0, ge=0.1, le=3_600.0)
    start_s: float = Field(default=0.0, ge=0.0, le=MAX_DURATION_S)  # the run begins so long after the epoch
    time_scale: float = Field(default=1.0, ge=0.01, le=1_000.0)  # seconds of the sky a second of the wall clock
    seed: int = Field(default=1, ge=0, lt=2**63)
    constellations: tuple[Constellation, ...] = Field(alias="constellation", strict=False, min_length=1)
    cross_isls: tuple[CrossIsl, ...] = Field(default=(), alias="isl", strict=False)
    grounds: tuple[Ground, ...] = Field(default=(), alias="ground", strict=False)
    faults: tuple[Fault, ...] = Field(default=(), alias="fault", strict=False)
    probes: tuple[Probe, ...] = Field(default=(), alias="probe", strict=False)
    resources: Resources = Resources()
    _label: str = PrivateAttr(default="scenario")

    @field_validator("epoch")
    @classmethod
    def _epoch_has_a_zone(cls, epoch: datetime) -> datetime:
        if epoch.tzinfo is None:
            raise PydanticCustomError("epoch", "has no time zone; write 2026-01-01T00:00:00Z for UTC")
        if not EPOCH_YEARS[0] <= epoch.year <= EPOCH_YEARS[1]:
            raise PydanticCustomError(
                "epoch", "must be in the years {first} to {last}", {"first": EPOCH_YEARS[0], "last": EPOCH_YEARS[1]}
            )
        return epoch.astimezone(UTC)

    @field_validator("step_s")
    @classmethod
    def _step_within_duration(cls, step_s: float, info: ValidationInfo) -> float:
        duration_s = info.data.get("duration_s")
        if duration_s is not None and step_s > duration_s:
            raise PydanticCustomError("step_s", "must not be longer than duration_s = {d}", {"d": duration_s})
        return step_s

    @property
    def label(self) -> str:
        """Where the scenario is from, as errors name it: its file, or "preset …"."""
        return self._label

    @property
    def satellite_names(self) -> tuple[str, ...]:
        """Names of all satellites, constellation by constellation: the first nodes of the timeline."""
        return tuple(name for constellation in self.constellations for name in constellation.satellite_names)

    @property
    def node_names(self) -> tuple[str, ...]:
        """Names of all nodes in the timeline's order: satellites first, then ground nodes."""
        return self.satellite_names + tuple(ground.name for ground in self.grounds)

    @property
    def n_step(self) -> int:
        """How many instants start_s, start_s + step_s … there are up to and including start_s + duration_s."""
        return int(self.duration_s / self.step_s + 1e-6) + 1

    def labelled(self, label: str) -> Self:
        """The same scenario, which tells errors where it is from."""
        copy = self.model_copy()
        copy._label = label
        return copy
