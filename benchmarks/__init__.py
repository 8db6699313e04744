"""What the dispatcher costs, measured: each figure a ratio within one interleaved run."""
