"""Reports what was committed: log lines, counters and spans; nothing that delivers reads them."""
