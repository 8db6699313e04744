-- Ids of events in the outbox that have certain labels, quarantined ones included; a thousand at most.
--
-- Parameters: $1 labels (JSON text), $2 tenant (NULL: any), $3 the last id of the slice before.
-- Index: outbox_pkey, in order; the labels are looked at. Locks: none.
SELECT id FROM dispatcher.outbox
WHERE id > $3 AND data IS NOT NULL AND labels @> $1::text::jsonb AND ($2::text IS NULL OR tenant = $2)
ORDER BY id
LIMIT 1000
