"""A run's record as a real run would leave it: the real sky, its commanded round trips, and a network's own noise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controller.links.routes import next_ports, path_costs, ports
from controller.planner import plan
from controller.record.model import JobRecord, Manifest, Sample, StepRecord, WorkloadResult
from controller.record.recorder import Recorder
from controller.scenario.load import load_scenario, preset_text
from controller.timeline import BoolArray, Role, Timeline

BLACKOUT_S = (60.0, 90.0)


@dataclass(frozen=True)
class SampleRun:
    """What was written, for comparison with what is read and drawn."""

    run_dir: Path
    timeline: Timeline
    samples: tuple[Sample, ...]
    summary: dict[str, object]


def iridium() -> tuple[Timeline, str, list[tuple[str, str]]]:
    """The preset's sky, its text and its probe pairs."""
    scenario = load_scenario("iridium-66")
    return plan(scenario), preset_text("iridium-66"), [(probe.a, probe.b) for probe in scenario.probes]


def manifest_of(timeline: Timeline, text: str) -> Manifest:
    """A manifest as a run on this machine writes it."""
    return Manifest.here(
        run_id="k3f9a1c2",
        scenario_name="iridium-66",
        scenario_text=text,
        timeline_hash=timeline.content_hash,
        seed=1,
        epoch_utc=timeline.epoch_utc,
        duration_s=float(timeline.t_s[-1]),
        step_s=timeline.step_s,
        runtime="docker",
        engine_version="20.10.24",
        shaper="delay-line",
        shaper_reason="this kernel has no sch_netem: No such file or directory",
    )


def write_sample_run(run_dir: Path) -> SampleRun:
    """A run of iridium-66 with a blackout of beijing, three jobs and a comparison, written by the real Recorder."""
    timeline, text, pairs = iridium()
    random = np.random.default_rng(7)
    recorder = Recorder(run_dir, manifest_of(timeline, text))
    recorder.event("run-started", 0.0, nodes=len(timeline.nodes))
    samples: list[Sample] = []
    before: set[int] = set()
    for step, t_s in enumerate(timeline.t_s.tolist()):
        usable = _usable(timeline, step)
        sky = timeline.sky(step)
        now = set(sky.link[usable].tolist())
        _write_changes(recorder, timeline, t_s, before, now)
        samples += _probe(timeline, step, usable, pairs, random)
        recorder.step(
            StepRecord(
                step=step,
                t_s=t_s,
                late_ms=round(float(random.gamma(2, 0.4)), 3),
                took_ms=round(float(random.gamma(6, 3)), 3),
                cpu_ms=round(float(random.gamma(6, 2)), 3),
                links_up=len(now),
                directions_changed=2 * len(now ^ before) + int(random.integers(150, 230)),
                routes_changed=int(random.integers(0, 60)),
                drift=0,
            )
        )
        before = now
    for sample in samples:
        recorder.sample(sample)
    _write_jobs(recorder)
    recorder.event("run-ended", float(timeline.t_s[-1]), reason="the scenario is over")
    return SampleRun(run_dir, timeline, tuple(samples), recorder.close())


def _usable(timeline: Timeline, step: int) -> BoolArray:
    sky, t_s = timeline.sky(step), float(timeline.t_s[step])
    beijing = next(n for n, node in enumerate(timeline.nodes) if node.name == "beijing")
    touches = (timeline.links.a[sky.link] == beijing) | (timeline.links.b[sky.link] == beijing)
    usable: BoolArray = ~touches if BLACKOUT_S[0] <= t_s < BLACKOUT_S[1] else np.ones_like(touches)
    return usable


def _write_changes(recorder: Recorder, timeline: Timeline, t_s: float, before: set[int], now: set[int]) -> None:
    names = [node.name for node in timeline.nodes]
    served: dict[str, dict[str, str]] = {"link-down": {}, "link-up": {}}
    if t_s == BLACKOUT_S[0]:
        recorder.event("fault-on", t_s, target="beijing", fault="blackout", mode="silent")
    if t_s == BLACKOUT_S[1]:
        recorder.event("fault-off", t_s, target="beijing", fault="blackout", mode="silent")
    for kind, links in (("link-down", before - now), ("link-up", now - before)):
        for link in sorted(links):
            a, b = names[timeline.links.a[link]], names[timeline.links.b[link]]
            is_gsl = bool(timeline.links.kind[link])
            recorder.event(
                "link-up" if kind == "link-up" else "link-down", t_s, a=a, b=b, link="gsl" if is_gsl else "isl"
            )
            if is_gsl:
                ground, satellite = (a, b) if b.startswith("iridium") else (b, a)
                served[kind][ground] = satellite
    for ground in served["link-down"].keys() & served["link-up"].keys():
        recorder.event(
            "handover", t_s, ground=ground, before=served["link-down"][ground], after=served["link-up"][ground]
        )


def _probe(
    timeline: Timeline, step: int, usable: BoolArray, pairs: Sequence[tuple[str, str]], random: np.random.Generator
) -> list[Sample]:
    n_node, sky = len(timeline.nodes), timeline.sky(step)
    index = {node.name: n for n, node in enumerate(timeline.nodes)}
    is_ground = np.array([node.role is not Role.SATELLITE for node in timeline.nodes])
    source, destination = (np.array([index[pair[end]] for pair in pairs]) for end in (0, 1))
    destinations, column = np.unique(destination, return_inverse=True)
    routes = next_ports(n_node, timeline.links, sky, usable, is_ground, destinations)
    panel = ports(n_node, timeline.links, sky, usable)
    costs = path_costs(routes, panel, destinations, source, column)
    samples = []
    for (a, b), delay_us, hops in zip(pairs, costs.delay_us.tolist(), costs.hops.tolist(), strict=True):
        is_up = delay_us >= 0
        noise_us = float(hops * random.gamma(4, 55) + random.exponential(60))
        measured_us = round(2 * delay_us + noise_us, 1) if is_up and random.random() > 0.002 else None
        samples.append(
            Sample(
                t_s=round(float(timeline.t_s[step]) + 0.3, 3),
                kind="link" if hops == 1 else "path",
                a=a,
                b=b,
                hops=max(hops, 0),
                commanded_rtt_us=2 * delay_us if is_up else None,
                measured_rtt_us=measured_us,
            )
        )
    return samples


def _write_jobs(recorder: Recorder) -> None:
    wait = "no route to iridium-p04s06; beijing is in blackout until 90 s"
    histories: dict[tuple[str, str], list[tuple[float, str, str, int]]] = {
        ("bent-pipe", "beijing"): [
            (20.0, "IN_TRANSIT", "fetching input 1 of 1 (24.0 MB) from iridium-p04s06", 0),
            (30.0, "IN_TRANSIT", "fetching input 1 of 1 (24.0 MB) from iridium-p04s06, 41 %", 9_800_000),
            (42.3, "QUEUED", "waiting for the processor", 24_000_000),
            (42.5, "RUNNING", "attempt 1", 24_000_000),
            (48.9, "SUCCEEDED", "exit status 0", 24_000_000),
        ],
        ("in-orbit", "iridium-p04s06"): [
            (55.0, "IN_TRANSIT", "sending the script", 0),
            (56.1, "RUNNING", "attempt 1", 2_300),
            (62.6, "RETURNING", wait, 2_300),
            (90.8, "RETURNING", "fetching output 1 of 1 (1.2 kB)", 2_300),
            (91.2, "SUCCEEDED", "exit status 0", 3_500),
        ],
        ("held-by-blackout", "iridium-p04s06"): [
            (65.0, "WAITING_CONTACT", wait, 0),
            (91.1, "IN_TRANSIT", "sending the script", 0),
            (92.0, "RUNNING", "attempt 1", 2_300),
            (98.4, "RETURNING", "fetching output 1 of 1 (1.2 kB)", 2_300),
            (99.0, "SUCCEEDED", "exit status 0", 3_500),
        ],
    }
    for (job, on_node), history in histories.items():
        for t_s, state, reason, moved_bytes in history:
            recorder.job(JobRecord("beijing", job, on_node, state, reason, moved_bytes, t_s, job))
    for way, scene, job, time_s, moved_bytes in (
        ("bent pipe", 1, "bent-pipe", 28.9, 24_003_500),
        ("in orbit", 1, "in-orbit", 7.4, 3_500),
        ("bent pipe across a blackout", 2, "held-by-blackout", 41.0, 24_003_700),
    ):
        finding = f"{16 + scene} hot spots"
        digest = f"sha256:{hashlib.sha256(finding.encode()).hexdigest()}"
        scene_object = f"sha256:{hashlib.sha256(bytes([scene])).hexdigest()}"
        recorder.workload(
            99.0,
            WorkloadResult(way, scene_object, job, "iridium-p04s06", "beijing", time_s, moved_bytes, finding, digest),
        )
