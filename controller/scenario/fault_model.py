"""What the scenario file says of faults: what goes wrong, where, how, and when."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from controller.scenario.fields import LossRatio, Table

FaultKind = Literal["blackout", "node-down", "degrade"]
FaultMode = Literal["silent", "reject", "carrier"]

PLANE = "plane:"
"""What a target begins with that is a plane of a Walker constellation: "plane:iridium-p03"."""

REGION = "region:"
"""What the label of a region begins with."""


class Region(Table):
    """A cap of the Earth: the nodes are in it whose sub-point, at the moment, is within `radius_m` of the centre."""

    latitude_deg: float = Field(ge=-90.0, le=90.0)
    longitude_deg: float = Field(ge=-180.0, le=180.0)
    radius_m: float = Field(gt=0.0, le=20_100_000.0)  # along the ground; half the way round at most

    @classmethod
    def from_label(cls, label: str) -> Self | None:
        """The region of a label; None for the label of anything else. Raises ValueError for one that none has."""
        if not label.startswith(REGION):
            return None
        latitude_deg, longitude_deg, radius_m = (float(part) for part in label.removeprefix(REGION).split(","))
        return cls(latitude_deg=latitude_deg, longitude_deg=longitude_deg, radius_m=radius_m)

    @property
    def label(self) -> str:
        """ "region:LATITUDE,LONGITUDE,RADIUS", as records and lists name it."""
        return f"{REGION}{self.latitude_deg:.12g},{self.longitude_deg:.12g},{self.radius_m:.12g}"


class Fault(Table):
    """Something that is masked over the geometry for a while.

    `target` is a node, "a~b" for the links between two, or "plane:NAME-pNN"; in its place, `region` is a part of the
    Earth. A blackout takes all links of the target, and a node-down too; in which way, the mode says: `silent`, what is
    sent vanishes; `reject`, senders are told at once that there is no way; `carrier`, the ports see no carrier. A
    degrade makes links slower, longer or lossier.

    It comes once, at `at_s`; or again and again, with `rate_per_hour`: then it may come from `at_s` on, and how long
    all is well between two is drawn from an exponential distribution, with as many an hour as that in the mean.
    """

    kind: FaultKind
    target: str = ""
    region: Region | None = None
    at_s: float = Field(default=0.0, ge=0.0)  # since the epoch; may be left out where there is a rate
    duration_s: float | None = Field(default=None, gt=0.0)  # None: it stays, unless it is cleared
    rate_per_hour: float | None = Field(default=None, gt=0.0, le=360.0)  # of the hours in which all is well
    mode: FaultMode | None = None  # None: silent for a blackout, carrier for a node-down
    extra_delay_s: float = Field(default=0.0, ge=0.0, le=10.0)  # of degrade: one way, beside the geometry's
    rate_ratio: float = Field(default=1.0, gt=0.0, le=1.0)  # of degrade: what is left of the rate
    loss_ratio: LossRatio = 0.0  # of degrade: part of the frames that is lost, beside the link's own

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        degrades = {"extra_delay_s", "rate_ratio", "loss_ratio"} & self.model_fields_set
        if self.kind == "degrade" and not degrades:
            raise PydanticCustomError("fault", "a degrade needs extra_delay_s, rate_ratio or loss_ratio")
        if self.kind == "degrade" and self.mode is not None:
            raise PydanticCustomError("fault", "mode is of blackout and node-down; a degrade takes no link")
        if self.kind != "degrade" and degrades:
            raise PydanticCustomError(
                "fault", "{keys} of degrade, not of {kind}: change one of the two",
                {"keys": " and ".join(sorted(degrades)) + (" is" if len(degrades) == 1 else " are"), "kind": self.kind},
            )  # fmt: skip
        if self.kind == "node-down" and len(self.ends) > 1:
            raise PydanticCustomError("fault", "a node-down has a node for its target; a link has a blackout")
        return self

    @model_validator(mode="after")
    def _one_place_and_time(self) -> Self:
        if bool(self.target) == (self.region is not None):
            found = "both" if self.target else "none"
            raise PydanticCustomError("fault", "needs exactly one of target and region, found {f}", {"f": found})
        if self.rate_per_hour is None and "at_s" not in self.model_fields_set:
            raise PydanticCustomError("fault", "needs at_s, when it begins, or rate_per_hour, how often it comes")
        if self.rate_per_hour is not None and self.duration_s is None:
            raise PydanticCustomError("fault", "rate_per_hour needs duration_s beside it: how long each time lasts")
        return self

    @property
    def label(self) -> str:
        """What people call its target: the target as given, or the region's label."""
        return self.target if self.region is None else self.region.label

    @property
    def end_s(self) -> float:
        """From when it is over for good, since the epoch: infinite where it stays, or comes again and again."""
        return math.inf if self.duration_s is None or self.rate_per_hour is not None else self.at_s + self.duration_s

    @property
    def ends(self) -> tuple[str, ...]:
        """The one node of a node's fault, or the two of a link's; none of a plane's or a region's."""
        return () if self.region is not None or self.plane else tuple(self.target.split("~"))

    @property
    def plane(self) -> str:
        """The plane's name; empty where the target is no plane."""
        return self.target.removeprefix(PLANE) if self.target.startswith(PLANE) else ""

    @property
    def way(self) -> FaultMode | None:
        """In which way links are taken; None for a degrade, which takes none."""
        if self.kind == "degrade":
            return None
        return self.mode or ("silent" if self.kind == "blackout" else "carrier")
