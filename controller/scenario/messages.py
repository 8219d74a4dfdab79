"""Pydantic's findings in the words of the scenario file: key path, value, and what is allowed."""

from __future__ import annotations

import types
import typing
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

_MAX_VALUE_LENGTH = 60
# Pydantic's kinds of finding about a bound: the bound's attribute and its word.
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def structural_problems(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line for each finding, in the order of the file's keys."""
    details = error.errors(include_url=False)
    # A list is "too short" also when it has entries, but none that is right: then those say why.
    explained = {detail["loc"][:1] for detail in details if len(detail["loc"]) > 1}
    details = [d for d in details if d["type"] != "too_short" or d["loc"] not in explained]
    return [line for detail in details for line in _lines(detail, root)]


def _lines(detail: ErrorDetails, root: type[BaseModel]) -> list[str]:
    kind, loc, context = detail["type"], detail["loc"], detail.get("ctx", {})
    path = key_path(loc)
    if kind == "extra_forbidden":
        return [f"{path}: unknown key{_suggestion(str(loc[-1]), list(_fields(root, loc[:-1])))}"]
    if kind == "missing":
        return [f"{path}: missing; it is required"]
    if kind == "element_sets":
        return [f"{path}: {line}" for line in context["lines"]]
    shown = "" if isinstance(detail["input"], dict | list) else f" = {_show(detail['input'])}"
    if kind in _BOUNDS:
        return [f"{path}{shown}: {_range(root, loc)}"]
    return [f"{path}{shown}: {_allowed(kind, context, detail['msg'])}"]


def key_path(loc: tuple[int | str, ...]) -> str:
    """("ground", 1, "latitude_deg") → "ground[1].latitude_deg"."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".") or "scenario"


def _show(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    text = {"True": "true", "False": "false"}.get(text, text)
    return text if len(text) <= _MAX_VALUE_LENGTH else text[: _MAX_VALUE_LENGTH - 1] + "…"


def _allowed(kind: str, context: dict[str, typing.Any], message: str) -> str:
    """What would be right, for the kinds of finding that a scenario can meet; pydantic's own words for the rest."""
    match kind:
        case "float_type":
            return "must be a number, without quotes"
        case "int_type":
            return "must be a whole number, without quotes or a decimal point"
        case "finite_number":
            return "must be a finite number"
        case "string_type":
            return "must be text, in quotes"
        case "literal_error":
            return f"must be one of {context['expected']}"
        case "datetime_type" | "datetime_parsing" | "datetime_from_date_parsing":
            return "must be a date and time with its zone, without quotes, such as 2026-01-01T00:00:00Z"
        case "tuple_type":
            return "must be a list; a table of this kind starts with [[…]]"
        case "model_type":
            return "must be a table of keys"
        case "too_short":
            return f"needs at least {context['min_length']}"
        case "string_pattern_mismatch" if "A-Z" in context["pattern"]:
            return 'must be a country code of two capital letters, such as "CN"'
        case "string_pattern_mismatch":
            return "must be 1 to 48 of the characters a-z, 0-9 and hyphen"
    return message


def _range(root: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """All bounds of the key at `loc`, not only the one that was passed."""
    metadata = _fields(root, loc[:-1])[str(loc[-1])].metadata
    words = [
        f"{word} {getattr(bound, key):,}".replace(",", "_")
        for key, word in _BOUNDS.values()
        for bound in metadata
        if hasattr(bound, key)
    ]
    return f"must be {' and '.join(words)}"


def _fields(root: type[BaseModel], loc: tuple[int | str, ...]) -> dict[str, FieldInfo]:
    """The keys that the table at `loc` may have; none where there is no table."""
    model: type[BaseModel] | None = root
    for part in loc:
        if isinstance(part, str) and model is not None:
            field = {f.alias or name: f for name, f in model.model_fields.items()}.get(part)
            model = None if field is None else _model_in(field.annotation)
    return {} if model is None else {f.alias or name: f for name, f in model.model_fields.items()}


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The table type within an annotation such as `tuple[Ground, ...]` or `Walker | None`."""
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return annotation
    for argument in typing.get_args(annotation):
        inner = _model_in(argument)
        if inner is not None:
            return inner
    return None


def _suggestion(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; here the keys are {', '.join(known)}"
