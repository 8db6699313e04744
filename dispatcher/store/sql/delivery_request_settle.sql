-- Takes away requests that have been carried out.
--
-- Parameters: one element a recorded attempt: $1 delivery id, $2 attempted at, $3 whether it succeeded.
-- A resend asked for while the attempt was in flight stays, unless that attempt succeeded: it follows it.
-- Index: delivery_request_pkey. Locks: the rows deleted.
DELETE FROM dispatcher.delivery_request AS r
USING unnest($1::uuid[], $2::timestamptz[], $3::boolean[]) AS a (delivery_id, attempted_at, succeeded)
WHERE r.delivery_id = ANY ($1) AND r.delivery_id = a.delivery_id AND r.kind = 'resend' AND (a.succeeded OR r.requested_at <= a.attempted_at)
