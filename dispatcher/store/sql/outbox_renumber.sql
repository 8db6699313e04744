-- Gives waiting events with generated ids a new number, and the id that follows from it.
--
-- Parameters: $1 ids. Returns old id, new id and tenant. Index: outbox_pkey (num_nulls(): see
-- outbox_fan_out.sql). Locks: the rows.
WITH drawn AS MATERIALIZED (
    SELECT w.id AS old_id, nextval('dispatcher.event_number') AS number
    FROM (
        SELECT id FROM dispatcher.outbox
        WHERE id = ANY ($1::text[]) AND num_nulls(consumed_at) = 1 AND id ~ '^evt_[0-9]{4}_[0-9]{6,}$'
        ORDER BY position
        FOR UPDATE
    ) AS w
)
UPDATE dispatcher.outbox AS o
SET position = d.number,
    id = substring(d.old_id FOR 9) || CASE WHEN d.number < 1000000 THEN lpad(d.number::text, 6, '0') ELSE d.number::text END
FROM drawn AS d
WHERE o.id = d.old_id AND o.id = ANY ($1::text[])
RETURNING d.old_id, o.id, o.tenant
