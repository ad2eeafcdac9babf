"""Benchmarks: figures beside a peer or the machine's limit in the same run. Not tests."""
