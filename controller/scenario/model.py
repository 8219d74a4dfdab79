"""The scenario file as frozen, validated types. Keys, units and meanings are the user's contract.

Values are strict: a number in quotes is an error, not a number. Checks that span several tables are in `load`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from controller.scenario.element_file import ElementFile, ElementFileKey
from controller.scenario.fault_model import Fault
from controller.scenario.fields import Jurisdiction, LossRatio, MtuBytes, RateBps, Slug, Table
from controller.scenario.hosting import Hosting
from controller.scenario.link_model import CrossIsl, IslPolicy, RadioBudget, Rain, isl_ports_needed
from controller.scenario.omm import OmmSet
from controller.scenario.tle import TleSet
from controller.timeline import MTU_BYTES

EPOCH_YEARS = (1957, 2056)  # what the two digits of a TLE's year can say
MAX_DURATION_S = 31 * 86_400.0
DEFAULT_ISL_PORTS = 4
MAX_ISL_PORTS = 128

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


class Constellation(Hosting):
    """Satellites that belong together, from a Walker pattern or from element sets."""

    name: Slug
    walker: Walker | None = None
    tle: ElementFileKey = None
    omm: ElementFileKey = None
    select: tuple[str, ...] = Field(default=("*",), strict=False, min_length=1)
    limit: int | None = Field(default=None, ge=1)
    isl: IslPolicy = IslPolicy()
    # The pool of ports for links within the constellation; where none is given, at least as many as its topology needs.
    isl_ports: int = Field(default=None, ge=0, le=MAX_ISL_PORTS, validate_default=True)
    max_gsl: int = Field(default=4, ge=0, le=64)
    jurisdiction: Jurisdiction | None = None  # the flag state of all its satellites
    image_on: tuple[str, ...] = Field(default=("*",), strict=False, min_length=1)  # which of its satellites host it

    @field_validator("isl_ports", mode="before")
    @classmethod
    def _ports_grow(cls, isl_ports: object, info: ValidationInfo) -> object:
        isl = info.data.get("isl")
        if isl_ports is not None or isl is None:
            return DEFAULT_ISL_PORTS if isl_ports is None else isl_ports
        return min(max(DEFAULT_ISL_PORTS, isl_ports_needed(isl)), MAX_ISL_PORTS)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [key for key in ("walker", "tle", "omm") if getattr(self, key) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "source", "needs exactly one of walker, tle and omm, found {found}",
                {"found": " and ".join(given) or "none"},
            )  # fmt: skip
        if self.image is None and self.image_on != ("*",):
            raise PydanticCustomError("image", "image_on says where an image runs: name the image, or leave it out")
        if self.walker is not None and (self.limit is not None or self.select != ("*",)):
            raise PydanticCustomError("source", "select and limit choose among element sets; walker has total")
        return self

    @property
    def element_file(self) -> ElementFile | None:
        """The file of element sets, of either kind; None for a Walker pattern."""
        return self.tle or self.omm

    @cached_property
    def element_sets(self) -> tuple[TleSet | OmmSet, ...]:
        """The element sets that `select` and `limit` leave, in the file's order; none for a Walker pattern."""
        if self.element_file is None:
            return ()
        sets = self.element_file.sets
        return tuple(s for s in sets if any(fnmatchcase(s.name, pattern) for pattern in self.select))[: self.limit]

    @cached_property
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
        return tuple(slug(s.name) or f"{self.name}-{s.catalogue}" for s in self.element_sets)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The satellites that host its image, if it has one."""
        if self.image is None:
            return ()
        return tuple(name for name in self.satellite_names if any(fnmatchcase(name, p) for p in self.image_on))

    @property
    def planes(self) -> dict[str, tuple[str, ...]]:
        """The planes of a Walker pattern, "NAME-p00" onwards, and the satellites of each; none of element sets."""
        if self.walker is None:
            return {}
        names, slots = self.satellite_names, self.walker.slots
        rows = [names[first : first + slots] for first in range(0, len(names), slots)]
        return {row[0].rpartition("s")[0]: row for row in rows}


class Waypoint(Table):
    """Where a moving ground node is at one time; between two it follows the great circle at an even pace."""

    at_s: float = Field(ge=0.0)  # since the epoch
    latitude_deg: float = Field(ge=-90.0, le=90.0)
    longitude_deg: float = Field(ge=-180.0, le=180.0)
    altitude_m: float = Field(default=0.0, ge=-500.0, le=30_000.0)


def _azimuth_and_elevation(point: tuple[float, float]) -> tuple[float, float]:
    azimuth_deg, elevation_deg = point
    if not (0.0 <= azimuth_deg < 360.0 and 0.0 <= elevation_deg < 90.0):
        raise PydanticCustomError(
            "horizon", "must be [azimuth, lowest elevation], from 0 to below 360 and from 0 to below 90 degrees"
        )
    return point


HorizonPoint = Annotated[tuple[float, float], Field(strict=False), AfterValidator(_azimuth_and_elevation)]


class Ground(Hosting):
    """A gateway or terminal, on the Earth or close above it."""

    name: Slug
    role: Literal["gateway", "terminal"]
    latitude_deg: float = Field(ge=-90.0, le=90.0)
    longitude_deg: float = Field(ge=-180.0, le=180.0)
    altitude_m: float = Field(default=0.0, ge=-500.0, le=30_000.0)  # here it is at the epoch
    waypoints: tuple[Waypoint, ...] = Field(default=(), strict=False)  # where it is later, if it moves
    min_elevation_deg: float = Field(default=10.0, ge=0.0, lt=90.0)
    horizon_deg: tuple[HorizonPoint, ...] = Field(default=(), strict=False)  # (azimuth, lowest elevation) pairs
    antennas: int = Field(default=1, ge=1, le=16)
    handover: Handover = "longest"
    overlap_s: float = Field(default=0.0, ge=0.0, le=600.0)  # make before break: so long both links are up
    rate_bps: RateBps = 50_000_000  # where no budget is given
    radio: RadioBudget | None = None
    rain: Rain | None = None
    loss_ratio: LossRatio = 0.0
    mtu_bytes: MtuBytes = MTU_BYTES  # the largest packet
    jurisdiction: Jurisdiction | None = None

    @field_validator("waypoints")
    @classmethod
    def _waypoints_in_order(cls, waypoints: tuple[Waypoint, ...]) -> tuple[Waypoint, ...]:
        for before, after in pairwise(waypoints):
            if after.at_s <= before.at_s:
                raise PydanticCustomError(
                    "waypoints", "at_s = {at_s} comes after {before_s}: times must increase",
                    {"at_s": after.at_s, "before_s": before.at_s},
                )  # fmt: skip
        return waypoints

    @field_validator("horizon_deg")
    @classmethod
    def _horizon_in_order(cls, horizon: tuple[HorizonPoint, ...]) -> tuple[HorizonPoint, ...]:
        for (before_deg, _), (azimuth_deg, _) in pairwise(horizon):
            if azimuth_deg <= before_deg:
                raise PydanticCustomError(
                    "horizon", "azimuth {azimuth} comes after {before}: azimuths must increase",
                    {"azimuth": azimuth_deg, "before": before_deg},
                )  # fmt: skip
        return horizon

    @field_validator("overlap_s")
    @classmethod
    def _overlap_has_two_antennas(cls, overlap_s: float, info: ValidationInfo) -> float:
        if overlap_s > 0.0 and info.data.get("antennas") == 1:
            raise PydanticCustomError("overlap_s", "needs antennas = 2 at least: one for each link of a handover")
        return overlap_s

    @field_validator("rain")
    @classmethod
    def _rain_falls_on_radio(cls, rain: Rain | None, info: ValidationInfo) -> Rain | None:
        if rain is not None and info.data.get("radio", 0) is None:
            raise PydanticCustomError("rain", "needs a radio budget beside it: a fixed rate_bps knows no weather")
        return rain


class Probe(Table):
    """Two nodes between which round trips are measured all along."""

    a: str
    b: str


class Resources(Table):
    """What each node may use."""

    memory_bytes: int = Field(default=512 * 1024 * 1024, ge=64 * 1024 * 1024)
    cpu_limit: float = Field(default=1.0, gt=0.0, le=1024.0)  # cores
    pids_limit: int = Field(default=128, ge=16)
    store_bytes: int = Field(default=2 * 1024**3, ge=1024 * 1024)  # of objects that a node keeps
    encrypt_at_rest: bool = False  # objects are encrypted on a node's disk, with keys of its own
    job_slots: int = Field(default=1, ge=1, le=64)  # jobs that a node runs at a time
    root: str = Field(default="/", pattern=r"^/")  # whose programs nodes without an engine have

    @property
    def half(self) -> Resources:
        """Of a node that hosts an image: what the agent and its jobs may use, and as much again is for the image."""
        halves = (self.memory_bytes // 2, self.cpu_limit / 2, self.pids_limit // 2)
        return self.model_copy(update=dict(zip(("memory_bytes", "cpu_limit", "pids_limit"), halves, strict=True)))


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

    @field_validator("start_s")
    @classmethod
    def _run_within_a_month(cls, start_s: float, info: ValidationInfo) -> float:
        if start_s + info.data.get("duration_s", 0.0) > MAX_DURATION_S:
            raise PydanticCustomError(
                "start_s", "start_s + duration_s must be at most {most}", {"most": f"{MAX_DURATION_S:_}"}
            )
        return start_s

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

    @cached_property
    def jurisdictions(self) -> dict[str, str]:
        """Whose law holds at each node that stands under one: a satellite's flag state, a ground node's country."""
        of_satellites = {name: c.jurisdiction for c in self.constellations for name in c.satellite_names}
        of_all = of_satellites | {ground.name: ground.jurisdiction for ground in self.grounds}
        return {name: code for name, code in of_all.items() if code is not None}

    @cached_property
    def hostings(self) -> dict[str, Hosting]:
        """What the nodes that host an image of the user's host, by the node's name."""
        of_satellites = {name: constellation for constellation in self.constellations for name in constellation.hosts}
        return of_satellites | {ground.name: ground for ground in self.grounds if ground.image is not None}

    @property
    def images(self) -> dict[str, Hosting]:
        """Every image that nodes host, by its key in the file."""
        tables: dict[str, Hosting] = {f"constellation[{i}].image": c for i, c in enumerate(self.constellations)}
        tables |= {f"ground[{i}].image": ground for i, ground in enumerate(self.grounds)}
        return {key: table for key, table in tables.items() if table.image is not None}

    def resources_of(self, node: str) -> Resources:
        """What a node's agent and its jobs may use."""
        return self.resources.half if node in self.hostings else self.resources

    @property
    def planes(self) -> dict[str, tuple[str, ...]]:
        """The planes of all Walker patterns, by name, and the satellites of each."""
        return {name: row for constellation in self.constellations for name, row in constellation.planes.items()}

    @property
    def n_step(self) -> int:
        """How many instants start_s, start_s + step_s … there are up to and including start_s + duration_s."""
        return int(self.duration_s / self.step_s + 1e-6) + 1

    def labelled(self, label: str) -> Self:
        """The same scenario, which tells errors where it is from."""
        copy = self.model_copy()
        copy._label = label
        return copy
