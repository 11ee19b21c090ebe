"""Benchmarks: ratios from one alternating run, written where the documentation reads them."""
