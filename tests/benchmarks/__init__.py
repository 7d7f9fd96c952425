"""The pure parts of the benchmarks, and one run of the whole machinery on tiny models."""
