"""The file of element sets that a constellation names: read, and every mistake in it told with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from controller.scenario.element_sets import ElementSet, ElementSetError
from controller.scenario.omm import EXTENSIONS, OmmSet, parse_omm
from controller.scenario.source import Source
from controller.scenario.tle import TleSet, parse_tle

_MAX_LINES = 20  # of one file's mistakes: the rest is counted


@dataclass(frozen=True)
class ElementFile:
    """A file of element sets: its path as the scenario gives it, and what it holds."""

    path: str
    sets: tuple[TleSet | OmmSet, ...]


def _read(value: object, info: ValidationInfo) -> object:
    """Read the file that the key names, by the scenario's source (the validation context)."""
    key = str(info.field_name)
    if not isinstance(value, str) or not isinstance(info.context, Source):
        raise PydanticCustomError("element_file", "must be the path of a file of element sets, in quotes")
    source = info.context
    path = source.folder / value
    extension = path.suffix.lower()
    if key == "omm" and extension not in EXTENSIONS:
        raise PydanticCustomError(
            "element_file", "must be the path of a file that ends in {known}", {"known": ", ".join(EXTENSIONS)}
        )
    sets: tuple[ElementSet, ...]
    try:
        text = source.element_text(value)
        sets = parse_omm(text, extension) if key == "omm" else parse_tle(text)
    except OSError as error:
        why = error.strerror or str(error)
        raise PydanticCustomError(
            "element_file", "cannot read {path}: {why}", {"path": str(path), "why": why}
        ) from error
    except UnicodeDecodeError as error:
        raise PydanticCustomError("element_file", "{path} is not a text file", {"path": str(path)}) from error
    except ElementSetError as error:
        lines = [f"{path}{place}: {message}" for place, message in error.problems[:_MAX_LINES]]
        if len(error.problems) > _MAX_LINES:
            lines.append(f"{path}: … and {len(error.problems) - _MAX_LINES} more such problems")
        raise PydanticCustomError("element_sets", "has bad element sets", {"lines": lines}) from error
    except ValueError as error:  # a path with a null character
        raise PydanticCustomError("element_file", "is no path: {why}", {"why": str(error)}) from error
    return ElementFile(path=value, sets=sets)


ElementFileKey = Annotated[ElementFile | None, BeforeValidator(_read)]
"""The value of `tle` and `omm`."""
