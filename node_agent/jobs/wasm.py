"""Runs one WebAssembly module with WASI preview 1: `python -I wasm.py RUN.json`, as a job's own process.

It sees its inputs under /inputs (read-only), its outputs under /output, its checkpoint's folder as /checkpoint, its
arguments and its environment; standard input is empty. Exit status: the module's; 134 after a trap, as after abort(3).

Its cost is counted in fuel, about one unit an instruction. Deterministic: the same module with the same inputs,
arguments and environment does the same and takes the same fuel, on every machine, as long as it asks neither for the
time nor for random numbers, which are the machine's; NaNs and relaxed SIMD are brought to one form. Imports nothing of
the agent's: it starts once a job.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import wasmtime

TRAPPED, NOT_EXECUTABLE = 134, 126
NO_LIMIT = 2**64 - 1
MODULE_NAME = "module"  # argv[0]


@dataclass(frozen=True)
class Run:
    """What is to be run, and how: the agent's words."""

    module: str  # binary or .wat
    arguments: list[str]
    environment: dict[str, str]
    inputs: str
    outputs: str
    checkpoint: str
    memory_bytes: int  # linear
    fuel: int  # 0: no limit
    report: str  # where the fuel it took is to be told, and why it ended if not by itself


def main(path: str) -> int:
    """The program. Its exit status."""
    run = Run(**json.loads(Path(path).read_text()))
    store = wasmtime.Store(_engine())
    budget = run.fuel or NO_LIMIT
    store.set_fuel(budget)
    store.set_limits(memory_size=run.memory_bytes, memories=1)
    status, reason = _execute(run, store)
    report = {"fuel": budget - store.get_fuel(), "reason": reason}
    Path(run.report).write_text(json.dumps(report))
    if reason:
        sys.stderr.write(f"{reason}\n")
    return status


def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.consume_fuel = True
    config.cranelift_nan_canonicalization = True
    config.wasm_relaxed_simd_deterministic = True
    config.parallel_compilation = False  # a node has a share of a core
    return wasmtime.Engine(config)


def _execute(run: Run, store: wasmtime.Store) -> tuple[int, str]:
    """The exit status, and why, if it did not end by itself."""
    try:
        module = wasmtime.Module(store.engine, _binary(Path(run.module)))
        linker = wasmtime.Linker(store.engine)
        linker.define_wasi()
        store.set_wasi(_wasi(run))
        start = linker.instantiate(store, module).exports(store).get("_start")
    except wasmtime.WasmtimeError as error:
        return NOT_EXECUTABLE, f"not a module that can be run: {error}"
    except wasmtime.Trap as trap:
        return TRAPPED, _why(trap, run)
    if not isinstance(start, wasmtime.Func):
        return NOT_EXECUTABLE, "not a module that can be run: it has no function _start"
    try:
        start(store)
    except wasmtime.ExitTrap as end:
        return end.code, ""
    except (wasmtime.Trap, wasmtime.WasmtimeError) as trap:
        return TRAPPED, _why(trap, run)
    return 0, ""


def _binary(path: Path) -> bytes:
    content = path.read_bytes()
    return content if content.startswith(b"\0asm") else bytes(wasmtime.wat2wasm(content))


def _wasi(run: Run) -> wasmtime.WasiConfig:
    wasi = wasmtime.WasiConfig()
    wasi.argv = [MODULE_NAME, *run.arguments]
    wasi.env = list(run.environment.items())
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    wasi.preopen_dir(run.inputs, "/inputs", fs_mutable=False)
    wasi.preopen_dir(run.outputs, "/output")
    wasi.preopen_dir(run.checkpoint, "/checkpoint")
    return wasi


def _why(trap: Exception, run: Run) -> str:
    if isinstance(trap, wasmtime.Trap) and trap.trap_code is wasmtime.TrapCode.OUT_OF_FUEL:
        return f"out of fuel: its limit is {run.fuel}"
    return f"trap: {str(trap).rpartition('wasm trap:')[2].strip()}"  # before that stands a backtrace


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
