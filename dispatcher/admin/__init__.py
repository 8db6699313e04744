"""What people and machines ask of a running dispatcher: probes, metrics, and the operations behind the commands."""
