"""Benchmarks as ratios, one small measure a topic; `tools/bench.py` runs them. They need a clone with its tests."""
