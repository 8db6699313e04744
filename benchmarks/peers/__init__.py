"""What a user would pick instead, on the same work: run by `python -m benchmarks peers`."""
