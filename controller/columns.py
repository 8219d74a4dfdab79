"""Frozen dataclasses whose fields are arrays of one length, as tables: rows taken, tables put one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from controller.timeline import BoolArray, IntArray


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Table = TypeVar("Table", bound=_Dataclass)


def taken(table: Table, rows: BoolArray | IntArray) -> Table:
    """Some rows of a table, chosen by a mask or by their numbers, in that order."""
    return type(table)(**{field.name: getattr(table, field.name)[rows] for field in fields(table)})


def joined(tables: Sequence[Table]) -> Table:
    """All rows of tables of one kind, one table after another. Raises IndexError for none."""
    kind = type(tables[0])
    return kind(**{field.name: np.concatenate([getattr(t, field.name) for t in tables]) for field in fields(kind)})
