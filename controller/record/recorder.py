"""Writes a run's record while it lives: manifest.json at once, then a line an event and a line a sample.

Every line is handed to the kernel as it is written, so a run that is killed loses none; and whole or not at all, so
that a full disk ends the record with a line's end.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controller.errors import InputError, SkyrackError
from controller.record.model import EventKind, JobRecord, LoadResult, Manifest, Sample, StepRecord, WorkloadResult
from controller.record.read import read_record
from controller.record.summary import summarise
from controller.timeline import utc_text

MANIFEST = "manifest.json"
EVENTS = "events.jsonl"
SAMPLES = "samples.jsonl"
SUMMARY = "summary.json"


class Recorder:
    """The record of one run. Every method may be called from any thread.

    Raises InputError when out_dir holds a run already, and SkyrackError when the disk refuses a line: then, and from
    then on, for a record with a gap would tell something else than what happened.
    """

    def __init__(self, out_dir: Path, manifest: Manifest) -> None:
        self.out_dir = out_dir
        self._epoch_utc = datetime.fromisoformat(manifest.epoch_utc)
        self._lock = threading.Lock()
        if (out_dir / MANIFEST).exists():
            raise InputError(f"{out_dir} already holds the record of a run; name another folder with --out")
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
            write_json(out_dir / MANIFEST, asdict(manifest))
            self._events = _Lines(out_dir / EVENTS)
            self._samples = _Lines(out_dir / SAMPLES)
        except OSError as error:
            raise SkyrackError(f"cannot write the run's record in {out_dir}: {error.strerror}") from error
        self._failure: SkyrackError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def event(self, kind: EventKind, t_s: float, **fields: object) -> None:
        """Something happened at t_s of the scenario. Fields are JSON values; EventKind names those the report reads."""
        utc = utc_text(self._epoch_utc + timedelta(seconds=t_s))
        line = json.dumps({"kind": kind, "t_s": round(t_s, 6), "utc": utc, **fields}, ensure_ascii=False)
        self._write(self._events, line)

    def step(self, record: StepRecord) -> None:
        """A step of the loop is done."""
        fields = asdict(record)
        self.event("step", fields.pop("t_s"), **fields)

    def job(self, record: JobRecord) -> None:
        """A job entered a state."""
        fields = asdict(record)
        self.event("job", fields.pop("t_s"), **fields)

    def workload(self, t_s: float, result: WorkloadResult) -> None:
        """A workload's way ended with a result that is to be compared."""
        self.event("workload", t_s, **asdict(result))

    def load(self, t_s: float, result: LoadResult) -> None:
        """A pass over the trace of a load has ended."""
        self.event("load", t_s, **asdict(result))

    def sample(self, sample: Sample) -> None:
        """A probe was answered, or given up."""
        self._write(self._samples, json.dumps(asdict(sample), ensure_ascii=False))

    def close(self) -> dict[str, Any]:
        """End the record and write summary.json, which is also returned. Idempotent."""
        with self._lock:
            self._events.close()
            self._samples.close()
        summary = summarise(read_record(self.out_dir))
        write_json(self.out_dir / SUMMARY, summary)
        return summary

    def _write(self, lines: _Lines, line: str) -> None:
        with self._lock:
            if lines.closed:  # a probe may answer while the run ends; its record is complete without it
                return
            if self._failure is not None:
                raise self._failure
            try:
                lines.append(line)
            except OSError as error:
                self._failure = _refused(lines.path, error)
                raise self._failure from error


class _Lines:
    """A file of lines, each of which is in it whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb", buffering=0)
        self._size_bytes = 0

    @property
    def closed(self) -> bool:
        """Whether no line is taken any more."""
        return self._file.closed

    def append(self, line: str) -> None:
        """Write one line. Raises OSError, and leaves the file as it was."""
        rest = memoryview(f"{line}\n".encode())
        size_bytes = self._size_bytes + len(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._size_bytes)
            raise
        self._size_bytes = size_bytes

    def close(self) -> None:
        """Take no more. Idempotent."""
        self._file.close()


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write one JSON document whole or not at all. Raises SkyrackError."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: what is at `path` is never half of it. Raises SkyrackError."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> SkyrackError:
    return SkyrackError(f"cannot write {path}: {error.strerror}")
