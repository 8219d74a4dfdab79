"""Writes a run's record while it lives: manifest.json at once, then a line an event and a line a sample.

Every line is handed to the kernel as it is written, so a run that is killed loses none.
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
from controller.record.model import EventKind, JobRecord, Manifest, Sample, StepRecord, WorkloadResult
from controller.record.read import read_record
from controller.record.summary import summarise
from controller.timeline import utc_text

MANIFEST = "manifest.json"
EVENTS = "events.jsonl"
SAMPLES = "samples.jsonl"
SUMMARY = "summary.json"


class Recorder:
    """The record of one run. Every method may be called from any thread.

    Raises InputError when out_dir holds a run already, and SkyrackError when the disk refuses a line.
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
            self._events = (out_dir / EVENTS).open("w", buffering=1, encoding="utf-8")
            self._samples = (out_dir / SAMPLES).open("w", buffering=1, encoding="utf-8")
        except OSError as error:
            raise SkyrackError(f"cannot write the run's record in {out_dir}: {error.strerror}") from error

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
        self._write(line, to_samples=False)

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

    def sample(self, sample: Sample) -> None:
        """A probe was answered, or given up."""
        self._write(json.dumps(asdict(sample), ensure_ascii=False), to_samples=True)

    def close(self) -> dict[str, Any]:
        """End the record and write summary.json, which is also returned. Idempotent."""
        with self._lock:
            self._events.close()
            self._samples.close()
        summary = summarise(read_record(self.out_dir))
        write_json(self.out_dir / SUMMARY, summary)
        return summary

    def _write(self, line: str, *, to_samples: bool) -> None:
        stream = self._samples if to_samples else self._events
        with self._lock:
            if stream.closed:  # a probe may answer while the run ends; its record is complete without it
                return
            try:
                stream.write(line + "\n")
            except OSError as error:
                raise SkyrackError(f"cannot write the run's record in {self.out_dir}: {error.strerror}") from error


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write one JSON document whole or not at all."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: what is at `path` is never half of it."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
