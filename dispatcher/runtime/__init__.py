"""Helpers of the running process: clock, tasks, batches, test signals, supervisor."""
