"""The plan as JSON lines: what a run commands, one step a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import numpy as np

from controller.faults import FaultSchedule
from controller.orbit.frames import ecef_to_geodetic
from controller.timeline import LinkKind, Timeline, utc_text


def plan_lines(timeline: Timeline, faults: FaultSchedule) -> Iterator[str]:
    """One JSON document a step, without line ends: every node's place and light, every usable link.

    Links that a fault masks are absent. Links are in the timeline's order, by name of `a` and then of `b`; `a` sorts
    before `b`. Places are rounded to 1 mm and 1e-8°, elevations to 1e-4°, sunlight to 1e-6.
    """
    place = ecef_to_geodetic(timeline.r_ecef_m)
    names = [node.name for node in timeline.nodes]
    r_ecef_m = np.round(timeline.r_ecef_m, 3)
    latitude_deg, longitude_deg = np.round(place.latitude_deg, 8), np.round(place.longitude_deg, 8)
    altitude_m, illumination_ratio = np.round(place.altitude_m, 3), np.round(timeline.illumination_ratio, 6)
    for step, t_s in enumerate(timeline.t_s):
        nodes = {
            name: {
                "r_ecef_m": r_ecef_m[i, step].tolist(),
                "latitude_deg": float(latitude_deg[i, step]),
                "longitude_deg": float(longitude_deg[i, step]),
                "altitude_m": float(altitude_m[i, step]),
                "illumination_ratio": float(illumination_ratio[i, step]),
            }
            for i, name in enumerate(names)
        }
        yield json.dumps(
            {
                "t_s": round(float(t_s), 6),
                "utc": utc_text(timeline.epoch_utc + timedelta(seconds=float(t_s))),
                "nodes": nodes,
                "links": _links(timeline, faults, step),
            }
        )


def _links(timeline: Timeline, faults: FaultSchedule, step: int) -> list[dict[str, object]]:
    sky = timeline.sky(step)
    usable = faults.usable(float(timeline.t_s[step]), timeline, sky)
    table = timeline.links
    return [
        {
            "a": timeline.nodes[table.a[link]].name,
            "b": timeline.nodes[table.b[link]].name,
            "kind": LinkKind(table.kind[link]).name.lower(),
            "range_m": round(float(range_m), 3),
            "delay_us": int(delay_us),
            "rate_bps": int(table.rate_bps[link]),
            "loss_ratio": float(table.loss_ratio[link]),
            "elevation_deg": None if np.isnan(elevation_deg) else round(float(elevation_deg), 4),
        }
        for link, range_m, delay_us, elevation_deg in zip(
            sky.link[usable], sky.range_m[usable], sky.delay_us[usable], sky.elevation_deg[usable], strict=True
        )
    ]
