"""Where satellites and the Sun are: elements, ephemeris, frames, sunlight. Pure; the only room that knows sgp4."""
