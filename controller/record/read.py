"""Reads a run's record back from its directory, also that of a run which was killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from controller.errors import InputError
from controller.record.model import Event, JobRecord, LoadResult, Manifest, Sample, StepRecord, WorkloadResult

_Row = TypeVar("_Row", Manifest, StepRecord, Sample, JobRecord, WorkloadResult, LoadResult)


@dataclass(frozen=True)
class FaultWindow:
    """A fault over the geometry, from when until when. end_s is the record's end where the fault was never lifted."""

    target: str  # a node, or "a~b" for a link
    fault: str
    mode: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class RunRecord:
    """All of a run's record, in the order in which it was written."""

    manifest: Manifest
    steps: tuple[StepRecord, ...]
    samples: tuple[Sample, ...]
    jobs: tuple[JobRecord, ...]
    workloads: tuple[WorkloadResult, ...]
    events: tuple[Event, ...]  # the others
    loads: tuple[LoadResult, ...] = ()

    @property
    def end_s(self) -> float:
        """The last moment of which anything is recorded."""
        moments = [r.t_s for rows in (self.steps, self.samples, self.jobs, self.events) for r in rows]
        return max(moments, default=0.0)

    def faults(self) -> tuple[FaultWindow, ...]:
        """Every fault that was put on, in order of its start."""
        windows: list[FaultWindow] = []
        on: dict[tuple[str, str], Event] = {}
        for event in self.events:
            key = (str(event.fields.get("target", "")), str(event.fields.get("fault", "fault")))
            if event.kind == "fault-on":
                on.setdefault(key, event)
            elif event.kind == "fault-off" and key in on:
                windows.append(_window(key, on.pop(key), event.t_s))
        windows += [_window(key, event, self.end_s) for key, event in on.items()]
        return tuple(sorted(windows, key=lambda window: (window.start_s, window.target)))


def read_record(run_dir: Path) -> RunRecord:
    """The record in `run_dir`. Raises InputError when that folder holds none, or a broken one (file and line)."""
    try:
        document = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
        manifest = _make(Manifest, {**document, "argv": tuple(document["argv"])})
    except FileNotFoundError as error:
        raise InputError(f"{run_dir} holds no record of a run: manifest.json is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run_dir / 'manifest.json'} is no manifest of a run: {error}") from error
    steps: list[StepRecord] = []
    jobs: list[JobRecord] = []
    workloads: list[WorkloadResult] = []
    loads: list[LoadResult] = []
    events: list[Event] = []
    for line in _lines(run_dir / "events.jsonl"):
        match line["kind"]:
            case "step":
                steps.append(_make(StepRecord, line))
            case "job":
                jobs.append(_make(JobRecord, line))
            case "workload":
                workloads.append(_make(WorkloadResult, line))
            case "load":
                loads.append(_make(LoadResult, line))
            case kind:
                rest = {key: value for key, value in line.items() if key not in ("kind", "t_s", "utc")}
                events.append(Event(kind, line["t_s"], rest))
    samples = tuple(_make(Sample, line) for line in _lines(run_dir / "samples.jsonl"))
    return RunRecord(manifest, tuple(steps), samples, tuple(jobs), tuple(workloads), tuple(events), tuple(loads))


def last_instant_s(run_dir: Path) -> float | None:
    """The sky's time at the newest event of a record, also of a run that was killed; None where there is none."""
    newest_s = None
    for line in _lines(run_dir / "events.jsonl"):
        newest_s = float(line["t_s"])
    return newest_s


def _window(key: tuple[str, str], on: Event, end_s: float) -> FaultWindow:
    target, fault = key
    return FaultWindow(target, fault, str(on.fields.get("mode", "")), on.t_s, end_s)


def _make(cls: type[_Row], document: dict[str, Any]) -> _Row:
    names = {f.name for f in fields(cls)}
    try:
        return cls(**{key: value for key, value in document.items() if key in names})
    except TypeError as error:
        raise InputError(f"a record's line lacks something: {error}: {json.dumps(document)[:200]}") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a record. A last line without its end was cut off when the run was killed, and is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith("\n"):
                return
            try:
                document = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}:{number} is no line of a record: {error}") from error
            yield document
