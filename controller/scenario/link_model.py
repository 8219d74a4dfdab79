"""What the scenario file says of links: which inter-satellite links there are, link budgets, and rain."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from controller.scenario.fields import LossRatio, MtuBytes, RateBps, Table
from controller.timeline import MTU_BYTES

Topology = Literal["plus-grid", "ring", "nearest-k", "pairs", "none"]
Pair = Annotated[tuple[str, str], Field(strict=False)]  # TOML has lists, not tuples


class RadioBudget(Table):
    """A radio link's budget: its rate follows from range and weather, by the DVB-S2X table, the same both ways."""

    frequency_hz: float = Field(ge=1e9, le=1e12)
    bandwidth_hz: float = Field(ge=1e3, le=1e11)
    eirp_dbw: float = Field(ge=-60.0, le=120.0)  # of the sender
    g_t_db_k: float = Field(ge=-60.0, le=80.0)  # gain over noise temperature of the receiver
    losses_db: float = Field(default=0.0, ge=0.0, le=100.0)  # pointing, polarisation, gases, implementation
    roll_off_ratio: float = Field(default=0.2, ge=0.0, le=1.0)  # symbol rate = bandwidth ÷ (1 + roll-off)


class OpticalBudget(Table):
    """A laser link's budget: its rate follows from the range, up to what the terminal can do."""

    power_w: float = Field(gt=0.0, le=1e3)
    wavelength_m: float = Field(default=1.55e-6, ge=4e-7, le=2e-5)
    transmit_aperture_m: float = Field(gt=0.0, le=5.0)
    receive_aperture_m: float = Field(gt=0.0, le=5.0)
    losses_db: float = Field(default=0.0, ge=0.0, le=100.0)  # optics, pointing, margin
    photons_per_bit: float = Field(default=100.0, ge=0.5, le=1e6)  # that the receiver needs
    max_rate_bps: RateBps


class Rain(Table):
    """Rain over a ground node: it comes and goes by a seeded two-state process, as strong as ITU-R P.618 tells."""

    r001_mm_h: float = Field(gt=0.0, le=300.0)  # rain rate exceeded for 0.01 % of an average year, ITU-R P.837
    probability_ratio: float = Field(default=0.05, gt=0.0, le=0.05)  # of rain at any time: P.618 reaches to 5 %
    mean_duration_s: float = Field(default=1_200.0, ge=1.0)  # of one rain
    rain_height_m: float | None = Field(default=None, ge=0.0, le=10_000.0)  # above the sea; None: by latitude
    polarization_tilt_deg: float = Field(default=45.0, ge=-90.0, le=90.0)  # to the horizon; 45: circular


class IslPolicy(Table):
    """Which inter-satellite links there are, and what each carries."""

    topology: Topology = "plus-grid"
    k: int = Field(default=2, ge=1, le=16)  # of nearest-k: links a satellite seeks
    reassign_s: float = Field(default=60.0, ge=1.0)  # of nearest-k: how often it pairs anew
    pairs: tuple[Pair, ...] = Field(default=(), strict=False)  # of pairs: names of satellites
    rate_bps: RateBps = 100_000_000  # where no budget is given
    optical: OpticalBudget | None = None
    radio: RadioBudget | None = None
    loss_ratio: LossRatio = 0.0
    mtu_bytes: MtuBytes = MTU_BYTES  # the largest packet
    grazing_altitude_m: float = Field(default=80_000.0, ge=0.0, le=1_000_000.0)
    max_range_m: float | None = Field(default=None, gt=0.0)  # None: as far as the line of sight reaches
    cross_plane_max_latitude_deg: float = Field(default=90.0, ge=0.0, le=90.0)
    acquisition_s: float = Field(default=0.0, ge=0.0, le=3_600.0)  # before a new pairing carries data
    max_slew_deg_s: float | None = Field(default=None, gt=0.0)  # how fast a terminal can follow; None: any

    _OF_ONE_TOPOLOGY: ClassVar[dict[str, Topology]] = {
        "k": "nearest-k", "reassign_s": "nearest-k", "serves": "nearest-k", "pairs": "pairs",
    }  # fmt: skip

    @field_validator("pairs")
    @classmethod
    def _each_pair_once(cls, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
        counts = Counter(frozenset(pair) for pair in pairs)
        for pair in pairs:
            if pair[0] == pair[1]:
                raise PydanticCustomError("pairs", "{name} is paired with itself", {"name": repr(pair[0])})
            if counts[frozenset(pair)] > 1:
                raise PydanticCustomError(
                    "pairs", "{a} and {b} are a pair twice", {"a": repr(pair[0]), "b": repr(pair[1])}
                )
        return pairs

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.topology == "pairs" and not self.pairs:
            raise PydanticCustomError("pairs", 'topology "pairs" needs pairs, a list of [satellite, satellite]')
        for key, topology in self._OF_ONE_TOPOLOGY.items():
            if key in self.model_fields_set and self.topology != topology:
                raise PydanticCustomError(
                    "topology", '{key} is of topology "{right}", not of "{topology}": change one of the two',
                    {"key": key, "right": topology, "topology": self.topology},
                )  # fmt: skip
        if self.optical is not None and self.radio is not None:
            raise PydanticCustomError("budget", "has an optical and a radio budget: leave one out")
        return self


def isl_ports_needed(policy: IslPolicy) -> int:
    """How many ports the busiest satellite of a topology uses."""
    match policy.topology:
        case "plus-grid":
            return 4
        case "ring":
            return 2
        case "nearest-k":
            return policy.k
        case "pairs":
            return max(Counter(name for pair in policy.pairs for name in pair).values(), default=0)
    return 0


class CrossIsl(IslPolicy):
    """Links between two constellations, such as a relay's: each satellite of the first seeks partners in the second."""

    topology: Literal["nearest-k", "pairs"] = "nearest-k"
    between: tuple[str, str] = Field(strict=False)  # names of constellations
    k: int = Field(default=1, ge=1, le=16)  # links a satellite of the first seeks
    serves: int = Field(default=4, ge=1, le=64)  # links a satellite of the second serves

    @field_validator("between")
    @classmethod
    def _two_constellations(cls, between: tuple[str, str]) -> tuple[str, str]:
        if between[0] == between[1]:
            raise PydanticCustomError("between", "must name two constellations; links within one are its isl")
        return between
