"""What every table of the scenario file shares: strictness, and the kinds of value."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from controller.timeline import MAX_MTU_BYTES, MIN_MTU_BYTES

Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,48}$")]
RateBps = Annotated[int, Field(ge=1_000, le=1_000_000_000_000)]
LossRatio = Annotated[float, Field(ge=0.0, le=1.0)]
Jurisdiction = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]  # ISO 3166-1 alpha-2
MtuBytes = Annotated[int, Field(ge=MIN_MTU_BYTES, le=MAX_MTU_BYTES)]


class Table(BaseModel):
    """A table of the scenario file: no unknown keys, no change of type, no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
