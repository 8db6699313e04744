"""Development helpers: the embedded Postgres, the sample receiver and its certificates, sample endpoints and events.

`dispatcher dev`, `dispatcher listen`, the tests and the benchmarks use them. A running daemon imports none of them.
"""
