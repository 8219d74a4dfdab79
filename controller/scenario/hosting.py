"""An image of the user's that a node hosts, as tables of the scenario file have it."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from controller.scenario.fields import Table

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::\d+)?/)?{_COMPONENT}(?:/{_COMPONENT})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
    r"|sha256:[0-9a-f]{64}",
    re.ASCII,
)
"""distribution/reference: registry, path, tag, digest; or the id of an image on this machine."""

OWN_PREFIX = "SKYRACK_"


def _an_image(image: str) -> str:
    if not _REFERENCE.fullmatch(image):
        raise PydanticCustomError("image", 'must name an image as Docker does, such as "registry.example/name:tag"')
    return image


def _an_environment(environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise PydanticCustomError("environment", "has {name}, which is no name of a variable", {"name": repr(name)})
        if name.startswith(OWN_PREFIX):
            raise PydanticCustomError(
                "environment", "has {name}: names that begin with SKYRACK_ are skyrack's own", {"name": repr(name)}
            )
    return environment


class Hosting(Table):
    """A table whose nodes may each run an image of the user's, beside the agent."""

    image: Annotated[str, AfterValidator(_an_image)] | None = None
    command: tuple[str, ...] = Field(default=(), strict=False)  # in place of the image's own entry point and command
    environment: Annotated[dict[str, str], AfterValidator(_an_environment)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _an_image_to_run(self) -> Self:
        if self.image is None and (self.command or self.environment):
            raise PydanticCustomError("image", "command and environment are of an image: name one, or leave them out")
        return self
