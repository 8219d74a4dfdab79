"""How the command line looks: progress for people, plain lines for logs, and tables."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPE_COLUMNS = 160  # a pipe has no width; tables shall not be folded in it
out = Console(soft_wrap=True, highlight=False)
if not out.is_terminal:
    out.width = PIPE_COLUMNS
err = Console(stderr=True, soft_wrap=True, highlight=False)


class TerminalNarrator:
    """Progress bars on a terminal, nothing of them in a pipe; what is said, on standard error, with the time."""

    def __init__(self, quiet_in_pipe: bool) -> None:
        self._speaks = err.is_terminal or not quiet_in_pipe
        self._lock = threading.Lock()
        self._began_mono_s = time.monotonic()
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description:20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )

    def progress(self, what: str, done: int, total: int) -> None:
        """Move a bar; when it is full, one line says how long that took."""
        with self._lock:
            if what not in self._tasks:
                if not self._tasks:
                    self._bars.start()
                self._tasks[what] = self._bars.add_task(what, total=total)
            self._bars.update(self._tasks[what], completed=done)
            if done == total:
                self._bars.remove_task(self._tasks.pop(what))
                if not self._tasks:
                    self._bars.stop()
        if done == total:
            self.say(f"{what}: {total} of {total}")

    def say(self, text: str) -> None:
        """One line, with the seconds since the command began."""
        if self._speaks:
            err.print(f"[dim]{time.monotonic() - self._began_mono_s:7.1f} s[/dim]  {escape(text)}")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; numbers are set right."""
    sheet = Table(title=title or None, title_justify="left", header_style="bold")
    cells = [list(row) for row in rows]
    for column, heading in enumerate(headings):
        numeric = bool(cells) and all(_is_numeric(row[column]) for row in cells)
        sheet.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        sheet.add_row(*(escape(str(cell)) for cell in row))
    out.print(sheet)


def _is_numeric(cell: object) -> bool:
    """Whether a cell is a number, or a number's text with its unit, or a dash for none."""
    text = str(cell)
    return isinstance(cell, (int, float)) or text in ("–", "") or text.lstrip("-")[:1].isdigit()


def summary_tables(summary: dict[str, Any]) -> None:
    """The end of a run, for people."""
    rtt_rows = [
        (label, figures["count"], *(_milliseconds(figures[key]) for key in ("median", "p99", "min", "max")))
        for label, figures in (
            ("one hop", summary["rtt_error_one_hop_us"]),
            ("longer paths, per hop", summary["rtt_error_per_hop_us"]),
            ("all probes", summary["rtt_error_us"]),
        )
    ]
    table(("RTT error (ms)", "Probes", "Median", "p99", "Least", "Most"), rtt_rows, "Measured − commanded round trips")
    share = summary["loop_share_of_core_ratio"]
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(summary["jobs_by_state"].items()))
    facts = [
        ("Steps", f"{summary['steps']}, {summary['overruns']} overruns"),
        ("Loop", "–" if share is None else f"{share:.1%} of one core"),
        ("Links changed", f"{summary['links_changed']}, {summary['handovers']} handovers"),
        ("Drift repaired", summary["drift"]),
        ("Probes unanswered though up", summary["commanded_up_unanswered"]),
        ("Jobs", jobs or "none"),
    ]
    table(("Run", ""), facts)
    if summary["workloads"]:
        rows = [
            (
                result["way"],
                result["scene"],
                f"{result['time_to_insight_s']:.1f}",
                f"{result['ground_link_bytes'] / 1e6:.3f}",
                f"{result['finding']} ({result['finding_digest'][7:15]})",
            )
            for result in summary["workloads"]
        ]
        table(("Way", "Scene", "Time to insight (s)", "Ground link (MB)", "Finding"), rows, "The same search, two ways")


def _milliseconds(value_us: float | None) -> str:
    """Three digits after the point, or a dash for none."""
    return "–" if value_us is None else f"{value_us / 1e3:.3f}"
