"""What has to be done now and then: partitions ahead of time, and ending what will not happen."""
