"""Tables as text: the same rows as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A header line and a line a row; what is None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def json_text(rows: Iterable[Mapping[str, object]]) -> str:
    """One document: a list with an object a row; None is null."""
    return json.dumps(list(rows), indent=1, ensure_ascii=False, allow_nan=False)
