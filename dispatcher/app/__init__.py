"""The daemon: its parts, whether it is ready, and its life cycle from start to drain."""
