-- Takes certain waiting events out of the outbox, as outbox_claim.sql takes the oldest: another tenant's backlog is
-- before them (core/census.py).
--
-- Parameters: $1 positions, in the order of turns, $2 bytes of data at most (one event is taken whatever its size).
-- Index: outbox_waiting, one descent for each position. Locks: the rows taken; a row that another replica holds is
-- skipped, and one that it took is not there. The bytes are counted in the order of the positions given, so that large
-- events of one tenant do not keep another's small ones out.
WITH waiting AS MATERIALIZED (
    SELECT o.*, wanted.turn
    FROM unnest($1::bigint[]) WITH ORDINALITY AS wanted (position, turn)
    CROSS JOIN LATERAL (
        SELECT position, id, type, tenant, data, occurred_at, ordering_key, labels, inserted_at,
               CASE WHEN traceparent ~ '^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' THEN traceparent END
                   AS traceparent,
               id ~ '^evt_[0-9]{4}_[0-9]{6,}$' AS id_is_ours, bytes
        FROM dispatcher.outbox
        WHERE consumed_at IS NULL AND outbox.position = wanted.position
        FOR UPDATE SKIP LOCKED
    ) AS o
), taken AS MATERIALIZED (
    SELECT *
    FROM (SELECT *, sum(bytes) OVER (ORDER BY turn ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before FROM waiting) AS measured
    WHERE bytes_before < $2
), consumed AS (
    DELETE FROM dispatcher.outbox
    WHERE id = ANY (ARRAY(SELECT id FROM taken WHERE id_is_ours))
), remembered AS (
    UPDATE dispatcher.outbox
    SET data = NULL, bytes = 0, labels = '{}', ordering_key = NULL, traceparent = NULL, consumed_at = now()
    WHERE id = ANY (ARRAY(SELECT id FROM taken WHERE NOT id_is_ours))
)
SELECT id, type, data::text AS data, tenant, occurred_at, inserted_at,
       CASE WHEN labels <> '{}' THEN labels::text END AS labels, traceparent, ordering_key,
       CASE WHEN bytes_before = 0 THEN now() END AS accepted_at,
       CASE WHEN bytes_before = 0 THEN (SELECT version FROM dispatcher.routing) END AS routing_version,
       position
FROM taken
ORDER BY turn, bytes_before
