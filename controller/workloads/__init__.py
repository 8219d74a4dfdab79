"""Jobs worth flying: what the demo runs on a constellation, on real bytes."""
