"""The process's reports about itself: metrics and log lines; both are an interface."""
