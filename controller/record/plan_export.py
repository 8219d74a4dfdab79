"""The plan as JSON lines: what a run commands, one step a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import timedelta

import numpy as np

from controller.faults import FaultSchedule
from controller.orbit.frames import ecef_to_geodetic
from controller.timeline import Block, LinkKind, Sky, Timeline, utc_text

_STEPS_AT_ONCE = 64
"""Places under so many steps are worked out together: many for speed, few for memory."""


def plan_lines(timeline: Timeline, faults: FaultSchedule) -> Iterator[str]:
    """One JSON document a step, without line ends: every node's place and light, every usable link.

    Links that a fault masks are absent, and nodes after their end. Links are in the timeline's order, by name of `a`
    and then of `b`; `a` sorts before `b`. Places are rounded to 1 mm and 1e-8°, elevations to 1e-4°, sunlight to
    1e-6.
    """
    for index in range(len(timeline.blocks)):
        yield from block_lines(timeline, timeline.blocks[index], faults)


def block_lines(timeline: Timeline, block: Block, faults: FaultSchedule) -> Iterator[str]:
    """The lines of one block. The timeline may have forgotten those before it, and not know those after it."""
    names = [node.name for node in timeline.nodes]
    for first in range(0, block.n_step, _STEPS_AT_ONCE):
        steps = slice(first, first + _STEPS_AT_ONCE)
        r_ecef_m = np.moveaxis(block.r_ecef_m[steps], 1, 2)
        place = ecef_to_geodetic(r_ecef_m)
        figures = zip(
            np.round(r_ecef_m, 3).tolist(),
            np.round(place.latitude_deg, 8).tolist(),
            np.round(place.longitude_deg, 8).tolist(),
            np.round(place.altitude_m, 3).tolist(),
            np.round(block.illumination_ratio[steps].astype(np.float64), 6).tolist(),
            strict=True,
        )
        for i, step_figures in enumerate(figures, first):
            t_s = float(timeline.t_s[block.first_step + i])
            document = {
                "t_s": round(t_s, 6),
                "utc": utc_text(timeline.epoch_utc + timedelta(seconds=t_s)),
                "nodes": {
                    name: {
                        "r_ecef_m": r_m,
                        "latitude_deg": latitude_deg,
                        "longitude_deg": longitude_deg,
                        "altitude_m": altitude_m,
                        "illumination_ratio": illumination_ratio,
                    }
                    for name, r_m, latitude_deg, longitude_deg, altitude_m, illumination_ratio in zip(
                        names, *step_figures, strict=True
                    )
                    if not math.isnan(r_m[0])
                },
                "links": _links(timeline, faults, t_s, timeline.sky(block.first_step + i), names),
            }
            yield json.dumps(document, allow_nan=False)


def _links(
    timeline: Timeline, faults: FaultSchedule, t_s: float, sky: Sky, names: list[str]
) -> list[dict[str, object]]:
    masked = faults.masked(t_s, timeline, sky)
    sky, usable = masked.sky, masked.usable
    link = sky.link[usable]
    table = timeline.links
    kinds = {kind.value: kind.name.lower() for kind in LinkKind}
    return [
        {
            "a": names[a],
            "b": names[b],
            "kind": kinds[kind],
            "range_m": range_m,
            "delay_us": delay_us,
            "rate_bps": rate_bps,
            "loss_ratio": loss_ratio,
            "elevation_deg": None if math.isnan(elevation_deg) else elevation_deg,
        }
        for a, b, kind, range_m, delay_us, rate_bps, loss_ratio, elevation_deg in zip(
            table.a[link].tolist(),
            table.b[link].tolist(),
            table.kind[link].tolist(),
            np.round(sky.range_m[usable], 3).tolist(),
            sky.delay_us[usable].tolist(),
            sky.rate_bps[usable].tolist(),
            np.round(sky.loss_ratio[usable], 12).tolist(),
            np.round(sky.elevation_deg[usable].astype(np.float64), 4).tolist(),
            strict=True,
        )
    ]
