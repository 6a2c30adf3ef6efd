"""Benchmarks: this project beside its peers, on the same inputs, in one run (docs/performance.md)."""
