"""Figures in words, as the report, the plots and the terminal write them."""

from __future__ import annotations


def ms(value_us: float | None, digits: int = 2) -> str:
    """Microseconds in words, as milliseconds."""
    return "–" if value_us is None else f"{value_us / 1e3:.{digits}f} ms"


def size(value_bytes: float) -> str:
    """Bytes in words, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value_bytes) < 999.5:
            return f"{value_bytes:.0f} {unit}" if unit == "B" else f"{value_bytes:.3g} {unit}"
        value_bytes /= 1000
    return f"{value_bytes:.3g} TB" if value_bytes < 999.5 else f"{value_bytes:,.0f} TB"


def span(value_s: float) -> str:
    """Seconds in words: "47.25 s", "12 min 07 s", "3 h 05 min", "2 d 04 h"."""
    if value_s < 60:
        return f"{value_s:.4g} s"
    seconds = round(value_s)
    if seconds < 3_600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86_400:
        return f"{seconds // 3_600} h {seconds % 3_600 // 60:02d} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3_600:02d} h"


def count(number: int, noun: str) -> str:
    """A number and its noun: "1 step", "300 steps"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def words(state: str) -> str:
    """A state as people write it: "waiting contact"."""
    return state.replace("_", " ").lower()
