"""The pipeline under a simulated clock, network and database, driven by a seed."""
