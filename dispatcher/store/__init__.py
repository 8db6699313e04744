"""The only part that talks to Postgres: one statement a `.sql` file, no SQL in Python.

Every wait has a bound. What Postgres cannot do just now (away, frozen, read-only, restarting) is
one error, `StoreUnavailableError`, after which the caller retries with backoff; the connection that
met it is thrown away, never closed politely, since a polite close waits for a server that may not
answer.
"""
