-- The event of a delivery. Parameters: $1 day, $2 event id. Index: event_pkey of that day. Locks: none.
SELECT id, type, tenant,
       coalesce(data::text, convert_from(substring(bytes FROM data_offset + 1 FOR data_length), 'UTF8')) AS data,
       occurred_at, ordering_key, labels::text AS labels, traceparent,
       inserted_at, accepted_at, test, day
FROM dispatcher.event
WHERE day = $1 AND id = $2
