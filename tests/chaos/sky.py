"""The constellation of the chaos test: small, and so quick that contacts begin and end within a minute or two."""

from __future__ import annotations

TIME_SCALE = 120.0
PLANES, SLOTS = 3, 4
SATELLITES = tuple(f"leo-p{plane:02d}s{slot:02d}" for plane in range(PLANES) for slot in range(SLOTS))
GATEWAYS = ("quito", "nairobi", "singapore")
TERMINAL = "suva"
GROUNDS = (*GATEWAYS, TERMINAL)
NODES = (*SATELLITES, *GROUNDS)
STORE_BYTES = 24 * 1024**2
_ORBIT = "altitude_m = 2_000_000, inclination_deg = 50.0"
_GROUND = """
[[ground]]
name = "{name}"
role = "{role}"
latitude_deg = {latitude_deg}
longitude_deg = {longitude_deg}
min_elevation_deg = 5.0
rate_bps = 50_000_000
"""
_WHERE = {"quito": (-0.18, -78.47), "nairobi": (-1.29, 36.82), "singapore": (1.35, 103.82), "suva": (-18.12, 178.45)}


def scenario(seed: int, duration_s: float) -> str:
    """The scenario file of a run that may last so many seconds of the wall clock."""
    grounds = "".join(
        _GROUND.format(
            name=name,
            role="terminal" if name == TERMINAL else "gateway",
            latitude_deg=_WHERE[name][0],
            longitude_deg=_WHERE[name][1],
        )
        for name in GROUNDS
    )
    return f"""
name = "chaos"
epoch = 2026-01-01T00:00:00Z
duration_s = {duration_s * TIME_SCALE}
step_s = 30.0
time_scale = {TIME_SCALE}
seed = {seed}

[[constellation]]
name = "leo"
walker = {{ pattern = "delta", total = {PLANES * SLOTS}, planes = {PLANES}, phasing = 1, {_ORBIT} }}
isl = {{ topology = "nearest-k", k = 1, reassign_s = 600.0, max_range_m = 8_000_000, rate_bps = 100_000_000 }}
max_gsl = 2

[resources]
store_bytes = {STORE_BYTES}
{grounds}"""
