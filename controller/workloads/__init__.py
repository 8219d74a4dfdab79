"""Jobs worth flying: what `demo` and `bench-jobs` run on a constellation, on real bytes."""
