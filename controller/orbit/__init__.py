"""Where satellites and the Sun are: elements, tracks, frames, light, eclipses. Pure; the only room that knows sgp4."""
