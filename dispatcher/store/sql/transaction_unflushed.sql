-- Lets this transaction's commit return before it is on disk: for what a repetition makes again exactly (ADR 43).
-- Parameters: none. Locks: none. Sent together with transaction_begin, in one round trip.
SET LOCAL synchronous_commit = off
