"""Benchmarks: figures, each beside a limit or an alternative measured in the same run."""
