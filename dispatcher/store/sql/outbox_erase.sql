-- Takes an event that no endpoint has been sent yet out of the outbox, its data gone; it is history without deliveries.
--
-- Parameters: $1 event id, $2 tenant (NULL: any). Returns how many there were. Index: outbox_pkey. Locks: the row, so
-- that it waits for a fan-out that is at it; the event is in history then (event_erase.sql).
-- Also what was quarantined, which kept its data. Ids that producers gave stay as tombstones.
WITH waiting AS MATERIALIZED (
    SELECT id, type, tenant, occurred_at, inserted_at, id ~ '^evt_[0-9]{4}_[0-9]{6,}$' AS id_is_ours
    FROM dispatcher.outbox
    WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) AND data IS NOT NULL
    FOR UPDATE
), forgotten AS (
    DELETE FROM dispatcher.outbox WHERE id IN (SELECT id FROM waiting WHERE id_is_ours)
), remembered AS (
    UPDATE dispatcher.outbox
    SET data = NULL, bytes = 0, labels = '{}', ordering_key = NULL, traceparent = NULL, consumed_at = coalesce(consumed_at, now())
    WHERE id IN (SELECT id FROM waiting WHERE NOT id_is_ours)
), kept AS (
    INSERT INTO dispatcher.event
        (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at, erased_at)
    SELECT (now() AT TIME ZONE 'UTC')::date, id, type, tenant, '{}', occurred_at, '{}', inserted_at, now(), now()
    FROM waiting
)
SELECT count(*) FROM waiting
